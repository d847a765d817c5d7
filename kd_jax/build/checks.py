"""What can be refused as soon as fields, data and networks are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from kd_jax.data.bank import compatibility
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource, Method
from kd_jax.methods import sizes as sizes_lib
from kd_jax.train import phases
from kd_jax.train.inputs import Inputs
from kd_jax.train.step import Settings
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.train.views import Mix
from kd_jax.types import Specs


def counts(fields: Mapping[str, float]) -> None:
  """Whether fields of a config that count something can do so.

  Raises:
    ValueError: a negative one.
  """
  for field, count in fields.items():
    if count < 0:
      raise ValueError(f"config.{field} is {count}; it must be at least 0")


def inputs(found: Inputs, settings: Settings, teaching: Teaching) -> None:
  """Whether batches can be shared out and mixed, and belong to a bank.

  Raises:
    ValueError: they cannot, or the bank is of other images or views.
  """
  crops(found.batch_size, found.views, settings)
  for bank in teaching.stored:
    compatibility.check(bank, found.views, found.source)
  if _mixing(settings.mix) and not teaching.source.can_mix:
    raise ValueError(
      "mixing images needs what the teacher says about mixtures; the bank "
      "stores features of single crops. Set --config.mix.mixup=0 and "
      "--config.mix.cutmix=0, or --config.teacher.source=online"
    )


def crops(batch_size: int, views: Views, settings: Settings) -> None:
  """Whether the images of a batch can be shared out and mixed.

  Raises:
    ValueError: `batch_size` does not fit `num_crops`, the devices that crop,
      or the mixing of pairs.
  """
  unit, accum_steps = views.num_crops, settings.accum_steps
  reasons = [f"{unit} crops of an image"]
  if views.canvas:
    assert settings.mesh is not None
    unit *= settings.mesh.size * accum_steps
    reasons.append(f"cropping on {settings.mesh.size} devices")
  if _mixing(settings.mix):
    unit = np.lcm(unit, 2 * views.num_crops * accum_steps)
    reasons.append("mixing pairs of images")
  if batch_size % unit:
    raise ValueError(
      f"batch_size is {batch_size}; with {', '.join(reasons)} and "
      f"accum_steps={accum_steps} it must be a multiple of {unit}"
    )


def _mixing(mix: Mix) -> bool:
  return max(mix.mixup, mix.cutmix) > 0


def stretches(
  method: Method,
  steps: int,
  specs: tuple[Specs, Specs],
  teaching: Teaching,
  ema_decay: float,
) -> tuple[phases.Stretch, ...]:
  """The phases, after a check that they find what they read.

  Raises:
    ValueError: they do not.
  """
  found = phases.stretches(method, steps)
  for stretch in found:
    phases.check_taps(stretch.phase, *specs, teaching.source)
  phases.check_phases(found, teaching.bank is None, ema_decay)
  phases.check_method(method, specs)
  return found


def sizes(
  method: Method,
  found: tuple[phases.Stretch, ...],
  views: Views,
  specs_at: Callable[[int], tuple[Specs, Specs]],
) -> None:
  """Whether networks and method take every size that the phases name.

  Args:
    method: that runs.
    found: its phases.
    views: of the student's images.
    specs_at: side of the student's images -> taps of student and teacher.

  Raises:
    ValueError: one of them does not.
  """
  sides = sizes_lib.of(stretch.phase for stretch in found)
  if sides and views.canvas:
    raise ValueError(
      f"the phases have images of {list(sides)} pixels, which are cropped on "
      "the host; set --config.preprocess.canvas=0"
    )

  def shapes(specs: tuple[Specs, Specs]) -> object:
    made = jax.eval_shape(lambda k: method.init(k, *specs), jax.random.key(0))
    return jax.tree.map(lambda x: x.shape, made)

  usual = shapes(specs_at(views.image_size)) if sides else None
  for side in sides:
    try:
      same = shapes(specs_at(side)) == usual
    except ValueError as error:
      raise ValueError(f"method.sizes has {side} pixels: {error}") from error
    if not same:
      raise ValueError(
        f"method.sizes has {side} pixels, and the method has parameters that "
        f"are made for maps of {views.image_size}; use another head "
        "(--config.method.head=linear), or one size"
      )


def eval_tap(evals: tuple[str, ...], tap: str, student: Specs) -> None:
  """Whether the student offers what the evals read.

  Raises:
    ValueError: no such tap, or it is no vector per image.
  """
  vectors = [name for name, spec in student.items() if len(spec.shape) == 2]
  if evals and tap not in vectors:
    raise ValueError(
      f"config.eval.tap is {tap!r}; evals read one vector per "
      f"image, and this student has {vectors}"
    )


def labels(method: Method, data: DataSource, student: Specs) -> None:
  """Whether a method that reads labels gets them.

  Raises:
    ValueError: the data has none, or other classes than the student.
  """
  if not method.reads_labels:
    return
  what = "the loss term ce" if "ce" in method.terms else "the method"
  classes = student["logits"].shape[-1]
  if not data.num_classes or classes != data.num_classes:
    raise ValueError(
      f"{what} needs labels; the data has {data.num_classes} "
      f"classes and the student {classes} outputs. Use labelled data and set "
      f"--config.student.overrides.num_classes={data.num_classes}, or give "
      "ce the weight 0."
    )
