"""One fine-tuning step here, against the bare step of the same network.

python -m benchmarks.transfer_step [--task classify] [--size 64] [--batch 16]

'trainer' is the compiled step that the tasks classify and segment run: its own
state, loss terms, metrics, checks of gradients and the rate as an argument.
'bare' is what one would write with flax and optax: a jitted function of
parameters, batch statistics and optimizer state, forward, backward, update. The
first losses and the weights after two steps have to agree. Then both run in
turns. The batch already lies on the device: no input pipeline is timed. Both
ratios are medians over the rounds; 'cpu' is the process time of all threads.

Measured on the two cores of a VM that five people used (load 17 to 20), jax
0.10.2, float32, 9 rounds of 1 step, 64px; CPU ms per step, and the ratio of CPU
times (the aim is 1.05; wall times say nothing at such a load):

  classify, ResNet-18, batch 16: trainer 1467, bare 1446; 1.017
  segment, ResNet-18 and a head 'light', batch 8: trainer 723, bare 725; 1.004
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import kd_jax
from benchmarks import _command_line
from kd_jax import trees
from kd_jax.interfaces import Method
from kd_jax.methods import supervised
from kd_jax.models.backbone import variable_shapes
from kd_jax.teachers import none
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.views import as_unit
from kd_jax.transfer import segment, segmenter
from kd_jax.transfer.heads import light
from kd_jax.transfer.segmenter import Segmenter
from kd_jax.types import Batch, TrainState, Variables

TRAINER, BARE = "trainer", "bare"
STEPS = 1000  # of the schedule
OPTIM = Optim(lr=0.01, momentum=0.9, weight_decay=1e-4, schedule="poly")
NEAR = 1e-3  # relative difference of updates that passes, in float32

Run = Callable[[int], float]
"""Runs so many steps, waits for them and returns the last loss."""

Weights = Callable[[], Mapping[str, np.ndarray]]
"""{path: parameter} as they are now."""


class Side(NamedTuple):
  """One of the contenders."""

  run: Run
  weights: Weights


@dataclasses.dataclass(frozen=True)
class Work:
  """What both sides compute with.

  Attributes:
    model: the network, which gives 'logits'.
    method: the trainer's loss.
    variables: of the network, on the host.
    batch: labelled images.
  """

  model: nn.Module
  method: Method
  variables: Variables
  batch: Batch


def prepare(args: argparse.Namespace) -> Work:
  """Random weights, images and labels, the same in every run."""
  model, method = BUILD[args.task](args.network)
  rng = np.random.default_rng(0)
  shapes = variable_shapes(model, args.size)
  flat = trees.flatten(shapes)
  variables = trees.unflatten({k: _drawn(rng, k, v) for k, v in flat.items()})
  shape = (args.batch, args.size, args.size, 3)
  masks = args.task == "segment"
  label_shape = shape[: 3 if masks else 1]
  label = rng.integers(0, model.num_classes, label_shape)
  batch = Batch(
    image=rng.integers(0, 256, shape, np.uint8),
    label=label.astype(np.int16 if masks else np.int32),
    mask=np.ones(args.batch, np.float32),
  )
  return Work(model, method, variables, batch)


def _classifier(name: str) -> tuple[nn.Module, Method]:
  return kd_jax.create_model(name, num_classes=100), supervised.Method()


def _segmenter(name: str) -> tuple[nn.Module, Method]:
  backbone = kd_jax.create_model(name, num_classes=0)
  # Without dropout: both sides would have to draw the same numbers.
  model = Segmenter(backbone, light.Head(21, channels=64, dropout=0.0))
  return model, segment.Method(unread=segmenter.unread(model))


BUILD = {"classify": _classifier, "segment": _segmenter}


def _drawn(
  rng: np.random.Generator, path: str, leaf: jax.ShapeDtypeStruct
) -> np.ndarray:
  """N(0, 2 / fan_in) for kernels; norms are the identity."""
  if len(leaf.shape) > 1:
    std = np.float32((2 / np.prod(leaf.shape[:-1])) ** 0.5)
    return std * rng.standard_normal(leaf.shape, np.float32)
  return np.full(leaf.shape, path.endswith(("scale", "var")), np.float32)


def trainer(work: Work) -> Side:
  """The package's own step, as a transfer runs it."""
  mesh = mesh_lib.make_mesh()
  phase = work.method.phases()[0]
  tx = OPTIM.transform(STEPS)
  step = step_lib.make_train_step(
    work.model,
    none.Source(),
    phase,
    tx,
    step_lib.Settings(weights={"ce": 1.0}, mesh=mesh),
  )
  params = {"student": work.variables["params"]}
  fresh = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    stats={"student": work.variables.get("batch_stats", {}), "method": {}},
    opt=tx.init(step_lib.trainable(params, phase)),
    ema={},
    rng=jax.random.key_data(jax.random.key(0)),
  )
  frozen = {"teacher": {}, "artifact": {}, "rate": np.float32(1)}
  state, frozen = mesh_lib.place(fresh, mesh), mesh_lib.place(frozen, mesh)
  batch = mesh_lib.put_batch(work.batch, mesh)

  def run(steps: int) -> float:
    nonlocal state
    for _ in range(steps):
      state, found = step(state, frozen, batch)
    return float(found["loss/total"])

  return Side(run, lambda: _host(state.params["student"]))


def bare(work: Work) -> Side:
  """The same with nothing but flax and optax."""
  tx, step = _bare_optimizer(work), _bare_step(work.model)

  def update(state: Any, image: Any, label: Any) -> Any:
    params, stats, opt = state
    (value, stats), grads = step(params, stats, image, label)
    updates, opt = tx.update(grads, opt, params)
    return (optax.apply_updates(params, updates), stats, opt), value

  start = jax.tree.map(jnp.array, dict(work.variables))
  params = start["params"]
  state = (params, start.get("batch_stats", {}), tx.init(params))
  compiled = jax.jit(update, donate_argnums=0)
  image = jnp.array(work.batch.image)
  label = jnp.array(work.batch.label, jnp.int32)

  def run(steps: int) -> float:
    nonlocal state
    for _ in range(steps):
      state, value = compiled(state, image, label)
    return float(value)

  return Side(run, lambda: _host(state[0]))


def _bare_optimizer(work: Work) -> optax.GradientTransformation:
  """`OPTIM` of the parameters that are read, by hand."""
  rate = optax.polynomial_schedule(OPTIM.lr, 0.0, OPTIM.power, STEPS)
  tx = optax.chain(
    optax.add_decayed_weights(OPTIM.weight_decay),
    optax.sgd(rate, OPTIM.momentum),
  )
  unread = {p.removeprefix("student/") for p in work.method.phases()[0].frozen}
  paths = trees.flatten(work.variables["params"])
  kinds = {path: "fixed" if path in unread else "trained" for path in paths}
  return optax.multi_transform(
    {"trained": tx, "fixed": optax.set_to_zero()}, trees.unflatten(kinds)
  )


def _bare_step(model: nn.Module) -> Callable[..., Any]:
  """(parameters, statistics, images, labels) -> loss and gradient."""

  def loss(params: Any, stats: Any, image: Any, label: Any) -> Any:
    taps, updated = model.apply(
      {"params": params, "batch_stats": stats},
      as_unit(image),
      train=True,
      mutable=["batch_stats"],
    )
    rows = optax.softmax_cross_entropy_with_integer_labels(
      taps["logits"], label
    )
    return rows.mean(), updated.get("batch_stats", {})

  return jax.value_and_grad(loss, has_aux=True)


def _host(params: Any) -> Mapping[str, np.ndarray]:
  return {k: np.array(v) for k, v in trees.flatten(params).items()}


def check(
  losses: Sequence[float],
  sides: Sequence[Mapping[str, np.ndarray]],
  start: Mapping[str, np.ndarray],
) -> str:
  """Compares two sides by a loss and the changes of their weights.

  Args:
    losses: of the last step, per side.
    sides: {path: parameter}, per side.
    start: the same before the first step.

  Returns:
    What was found, in a line.

  Raises:
    ValueError: they do not compute the same.
  """
  mine, theirs = (
    np.concatenate([(side[k] - start[k]).ravel() for k in start])
    for side in sides
  )
  apart = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
  text = (
    f"losses {losses[0]:.6f} and {losses[1]:.6f}, updates {apart:.0e} apart"
  )
  same = abs(losses[0] - losses[1]) <= NEAR * abs(losses[1]) and apart <= NEAR
  if not same:
    raise ValueError(f"trainer and bare step do not compute the same: {text}")
  return text


def measure(
  runs: Mapping[str, Run], steps: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
  """{name: (wall, cpu) seconds per step of every round}, run in turns."""
  times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
  for number in range(rounds):
    # Neither side is always the first one.
    for name in sorted(runs, reverse=bool(number % 2)):
      wall, cpu = time.perf_counter(), time.process_time()
      runs[name](steps)
      found = time.perf_counter() - wall, time.process_time() - cpu
      times[name].append((found[0] / steps, found[1] / steps))
  return times


def table(times: Mapping[str, Sequence[tuple[float, float]]]) -> None:
  """Prints ms per step of both, and the ratios."""
  print(f"{'':20}{'wall':>9}{'cpu':>9}  (median ms per step)")
  for name, rounds in times.items():
    middle = [
      statistics.median(side) * 1e3 for side in zip(*rounds, strict=True)
    ]
    print(f"{name:20}{middle[0]:9.2f}{middle[1]:9.2f}")
  pairs = zip(times[TRAINER], times[BARE], strict=True)
  ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in pairs]
  wall, cpu = (statistics.median(side) for side in zip(*ratios, strict=True))
  print(f"{'trainer / bare':20}{wall:9.3f}{cpu:9.3f}  (median of the rounds)")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  numbers = {"batch": 16, "size": 64, "steps": 3, "rounds": 15}
  parser = _command_line.parser(__doc__, **numbers)
  parser.add_argument("--task", choices=BUILD, default="classify")
  parser.add_argument("--network", default="resnet18")
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Checks that both sides agree, times them and prints the table."""
  args = arguments(argv)
  work = prepare(args)
  sides = {TRAINER: trainer(work), BARE: bare(work)}
  print(
    f"{args.task}, {args.network}, batch {args.batch} of {args.size}px; jax "
    f"{jax.__version__} on {jax.devices()[0].device_kind}, load "
    f"{os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} CPU cores"
  )
  losses = [side.run(2) for side in sides.values()]
  weights = [side.weights() for side in sides.values()]
  print(check(losses, weights, _host(work.variables["params"])))
  runs = {name: side.run for name, side in sides.items()}
  table(measure(runs, args.steps, args.rounds))


if __name__ == "__main__":
  main()
