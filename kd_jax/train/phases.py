"""From a method to concrete phases, and the checks made before step 0."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import trees
from kd_jax.interfaces import Method, TeacherSource
from kd_jax.models.backbone import variable_shapes
from kd_jax.types import (
  HEAD,
  Array,
  Batch,
  Frozen,
  Network,
  Params,
  Phase,
  Specs,
  Variables,
)

_MAPS = (
  ", or write a bank that stores them: --config.bank.codec.name=maps "
  "--config.bank.codec.directions=\"{{'{}': 256}}\""
)


@dataclasses.dataclass(frozen=True)
class Stretch:
  """A phase with its first and its last step (exclusive)."""

  phase: Phase
  start: int
  stop: int


def stretches(method: Method, total_steps: int) -> tuple[Stretch, ...]:
  """Splits `total_steps` over the phases by their shares.

  Raises:
    ValueError: too few steps for the phases, or shares that do not sum to 1.
  """
  phases = method.phases()
  shares = [phase.steps_frac for phase in phases]
  if abs(sum(shares) - 1) > 1e-6:
    raise ValueError(f"steps_frac of the phases is {shares}; it must sum to 1")
  ends = [round(total_steps * sum(shares[: i + 1])) for i in range(len(shares))]
  starts = [0, *ends[:-1]]
  if any(stop <= start for start, stop in zip(starts, ends, strict=True)):
    raise ValueError(
      f"steps={total_steps} leaves no step for one of the {len(phases)} "
      "phases; set --config.steps higher"
    )
  parts = zip(phases, starts, ends, strict=True)
  return tuple(Stretch(*part) for part in parts)


def image_batch(
  batch_size: int,
  image_size: int | tuple[int, int],
  source: TeacherSource,
  *,
  label: Any = None,
) -> Batch:
  """The shapes of a batch as the step sees it.

  Args:
    batch_size: rows.
    image_size: side of the views, or height and width, pixels.
    source: the teacher.
    label: see `Views.label_specs`; None is a class of every image.
  """
  size = image_size if isinstance(image_size, tuple) else (image_size,) * 2
  if label is None:
    label = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  return Batch(
    image=jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.float32),
    label=label,
    mask=jax.ShapeDtypeStruct((batch_size,), jnp.float32),
    teacher=source.stored_specs(batch_size),
    views=source.view_specs(batch_size),
  )


def student_specs(
  student: Network, batch: Batch, *, truth: bool = False
) -> Specs:
  """Tap shapes of a freshly initialised student, nothing is computed.

  Args:
    student: the network.
    batch: shapes of one.
    truth: whether the student is given the labels, see `Needs.truth`.
  """
  if not truth:
    return dict(_taps(student, batch.image))
  run = functools.partial(student.apply, train=False)
  rngs = {"dropout": jax.random.key(0)}
  return jax.eval_shape(
    lambda v, x, y: run(v, x, truth=y, rngs=rngs),
    variable_shapes(student),
    batch.image,
    batch.label,
  )


@functools.lru_cache(maxsize=64)
def _taps(student: Network, image: jax.ShapeDtypeStruct) -> Specs:
  return jax.eval_shape(
    functools.partial(student.apply, train=False),
    variable_shapes(student, image.shape[1]),
    image,
  )


def teacher_specs(source: TeacherSource, frozen: Frozen, batch: Batch) -> Specs:
  """Tap shapes of the teacher, nothing is computed."""
  return jax.eval_shape(lambda f, b: dict(source(f, b).taps), frozen, batch)


def check_taps(
  phase: Phase, student: Specs, teacher: Specs, source: TeacherSource
) -> None:
  """Whether everything that a phase reads is there.

  Raises:
    ValueError: a tap or stage that student or teacher does not offer.
  """
  second = phase.hidden.taps if phase.hidden else ()
  sides = (
    ("student", (*phase.needs.student, *second), student),
    ("teacher", phase.needs.teacher, teacher),
  )
  for side, needed, offered in sides:
    missing = sorted(set(needed) - set(offered))
    if missing:
      stored = side == "teacher" and source.stored is not None
      more = _MAPS.format(missing[0].rpartition("/")[2]) if stored else ""
      raise ValueError(
        f"phase {phase.name!r} reads the {side} taps {missing}; this {side} "
        f"offers {sorted(offered)}. Choose another {side} or loss term{more}."
      )
  if not all(map(source.resumes, phase.needs.resume)):
    raise ValueError(
      f"phase {phase.name!r} runs the teacher from {phase.needs.resume}; "
      "this teacher source only holds stored taps. Set "
      "--config.teacher.source=online."
    )


def check_phases(
  found: tuple[Stretch, ...], online: bool, ema_decay: float
) -> None:
  """Whether weights can be frozen and handed on as the phases say.

  Args:
    found: the phases.
    online: whether the teacher can say something about images to judge by.
    ema_decay: of the moving average of parameters; 0 keeps none.

  Raises:
    ValueError: it cannot.
  """
  for phase in (stretch.phase for stretch in found):
    if phase.judge and not online:
      raise ValueError(
        f"phase {phase.name!r} ends with its best weights, and a bank says "
        "nothing about images to judge them by. Set "
        "--config.method.hand_over=last, or --config.teacher.source=online."
      )
    if ema_decay and (phase.judge or phase.train_from != "stem"):
      raise ValueError(
        f"phase {phase.name!r} freezes or hands on weights, which a moving "
        f"average would mix with others; set --config.ema_decay=0, not "
        f"{ema_decay}"
      )


def check_method(method: Method, specs: tuple[Specs, Specs]) -> None:
  """Whether the method takes these networks; nothing is computed.

  Raises:
    ValueError: what the method says.
  """
  jax.eval_shape(lambda key: method.init(key, *specs), jax.random.key(0))


def check_trainable(phase: Phase, params: Params) -> None:
  """Whether every path prefix of a phase names a parameter.

  Raises:
    ValueError: nothing to train, or a prefix that names no parameter.
  """
  paths = list(trees.flatten(params))
  optional = ("student", "method", *HEAD)
  for prefix in (*phase.trainable, *phase.frozen):
    named = any(trees.is_under(path, (prefix,)) for path in paths)
    if not named and prefix not in optional:
      top = sorted({"/".join(path.split("/")[:2]) for path in paths})
      raise ValueError(
        f"phase {phase.name!r} trains {prefix!r}, which names no parameter; "
        f"there are {top}"
      )
  if not trees.select(params, phase.trainable, phase.frozen):
    raise ValueError(f"phase {phase.name!r} trains no parameter")


def init_variables(
  student: Network, method: Method, key: Array, specs: tuple[Specs, Specs]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Fresh (params, stats), each {'student': ..., 'method': ...}."""
  return parted(*initialiser(student, method, specs)(*jax.random.split(key)))


Initialiser = Callable[[Array, Array], tuple[Variables, Variables]]
"""(key of the student, key of the method) -> variables of both."""


def initialiser(
  student: Network, method: Method, specs: tuple[Specs, Specs]
) -> Initialiser:
  """What makes fresh variables, compiled."""
  image = jnp.zeros((1, *student.example_size, 3))

  @jax.jit
  def init(
    student_key: Array, method_key: Array
  ) -> tuple[Variables, dict[str, Any]]:
    variables = student.init(student_key, image, train=False)
    return variables, dict(method.init(method_key, *specs))

  # Low optimization: the program runs once or few times, compiling is all its
  # cost.
  options = {"xla_backend_optimization_level": 0}
  keys = tuple(jax.random.split(jax.random.key(0)))
  lowered = init.lower(*keys)
  # The type of options leaves out numbers, which this one is.
  return lowered.compile(options)  # pyright: ignore[reportArgumentType]


def parted(
  variables: Variables, own: Variables
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(params, stats) of what an `Initialiser` returns."""
  params, rest = {"student": variables["params"]}, dict(own)
  # An empty branch would vanish in the first update and change the tree.
  if own.get("params"):
    params["method"] = own["params"]
  rest.pop("params", None)
  return params, {"student": variables.get("batch_stats", {}), "method": rest}
