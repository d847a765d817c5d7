"""How much of a device's peak whole train steps reach, by batch size.

python -m benchmarks.sweep [--methods kdep scalekd] [--batches 64 256 1024]

'peak' is measured first: the best product of two square matrices in the step's
dtype. A row is one run's own step on a batch that lies on the device: images
per second, operations per second (as XLA counts them before it optimises),
their share of the measured peak, and what the program allocates.
Variants of one step follow at the last batch size that fits: the teacher's
weights in bfloat16, the student's activations computed anew in the backward
pass, images cropped on the device ('canvas'). What does not fit says so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import _command_line, scalekd_step
from kd_jax.build.experiment import experiment
from kd_jax.report.run import throughput
from kd_jax.types import Batch

METHODS = ("supervised", "kdep", "scalekd")
HEADER = f"{'':36}   batch  ms/step  images/s  TFLOP/s  of peak     GB"


def peak(dtype: str, sides: Sequence[int]) -> float:
  """Operations per second of the fastest square matrix product."""
  best = 0.0
  for side in sides:
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul).lower(a, a).compile()
    product(a, a).block_until_ready()
    count = 10
    start = time.perf_counter()
    for _ in range(count):
      found = product(a, a)
    found.block_until_ready()
    seconds = (time.perf_counter() - start) / count
    best = max(best, 2 * side**3 / seconds)
  return best


def config_of(method: str, args: argparse.Namespace, batch: int) -> ConfigDict:
  """The run whose step is timed."""
  fields = argparse.Namespace(**{**vars(args), "batch": batch})
  if method == "scalekd":
    fields.teacher = args.scalekd_teacher
    return scalekd_step.scalekd(fields, "none")
  config = scalekd_step.common(fields)
  config.teacher.overrides = ConfigDict({"num_classes": 0})
  if method == "supervised":
    config.method = ConfigDict({"name": "supervised"})
    config.losses = ConfigDict({"ce": 1.0})
    config.teacher.update({"source": "none", "name": ""})
    config.teacher.overrides = ConfigDict({})
    config.data = ConfigDict({"name": "synthetic", "num_classes": 1000})
    config.student.overrides = ConfigDict({"num_classes": 1000})
  return config


def variants(
  method: str, args: argparse.Namespace
) -> dict[str, Callable[[ConfigDict], None]]:
  """{name: what it changes in a config of `method`}."""
  side = args.size + args.size // 4

  def low(config: ConfigDict) -> None:
    config.teacher.param_dtype = "bfloat16"

  def again(config: ConfigDict) -> None:
    config.method.remat = "full"

  def canvas(config: ConfigDict) -> None:
    config.preprocess.canvas = side
    config.preprocess.train_interpolation = "bilinear"

  found = {"canvas": canvas}
  if method != "supervised":
    found["teacher in bfloat16"] = low
  if method == "scalekd":
    found["remat"] = again
  return found


class Step:
  """A compiled train step with its arguments on the device.

  Attributes:
    flops: operations of a step.
    bytes: what the program allocates.
  """

  def __init__(self, config: ConfigDict, where: Path) -> None:
    parts = experiment(config, where)
    phase = parts.stretches[0].phase
    step, self._state, *self._rest = throughput.ready(
      parts, phase, made_up(config)
    )
    lowered = step.lower(self._state, *self._rest)
    # Before a backend puts in its own calls, whose operations nobody counts.
    self.flops = float(lowered.cost_analysis()["flops"])
    self._step = lowered.compile()
    needs = self._step.memory_analysis()
    self.bytes = (
      needs.argument_size_in_bytes
      + needs.output_size_in_bytes
      - needs.alias_size_in_bytes
      + needs.temp_size_in_bytes
    )

  def seconds(self, steps: int) -> float:
    """Per step."""
    start = time.perf_counter()
    for _ in range(steps):
      self._state, found = self._step(self._state, *self._rest)
    loss = float(found["loss/total"])
    if not np.isfinite(loss):
      raise ValueError(f"the loss is {loss}")
    return (time.perf_counter() - start) / steps


def made_up(config: ConfigDict) -> Batch:
  """A batch of noise, whole images where the device crops them."""
  rng = np.random.default_rng(0)
  rows, canvas = config.batch_size, config.preprocess.canvas
  side = canvas or config.preprocess.image_size
  box = np.array([0, 0, side, side, 0, side, side], np.int32)
  return Batch(
    image=rng.integers(0, 256, (rows, side, side, 3), np.uint8),
    label=rng.integers(0, 1000, rows, np.int32),
    mask=np.ones(rows, np.float32),
    geometry=np.tile(box, (rows, 1, 1)) if canvas else None,
  )


def row(
  name: str, config: ConfigDict, args: argparse.Namespace, top: float
) -> bool:
  """Prints a row; False where the step does not fit."""
  head = f"{name:36}{config.batch_size:8}"
  with tempfile.TemporaryDirectory() as where:
    try:
      step = Step(config, Path(where))
      step.seconds(2)
      rounds = [step.seconds(args.steps) for _ in range(args.rounds)]
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      print(f"{head}  does not fit", flush=True)
      return False
  seconds = statistics.median(rounds)
  rate = step.flops / seconds
  print(
    f"{head}{1e3 * seconds:9.1f}{config.batch_size / seconds:10.0f}"
    f"{rate / 1e12:9.2f}{rate / top:9.1%}{step.bytes / 1e9:7.2f}",
    flush=True,
  )
  return True


def sweep(args: argparse.Namespace, top: float) -> None:
  """Prints all rows."""
  deadline = time.monotonic() + args.minutes * 60
  for method in args.methods:
    fits = args.batches[0]
    for batch in args.batches:
      if time.monotonic() > deadline:
        print(f"{method:36}{batch:8}  no time left (--minutes)")
        continue
      if not row(method, config_of(method, args, batch), args, top):
        break
      fits = batch
    for name, change in variants(method, args).items():
      if time.monotonic() < deadline:
        config = config_of(method, args, fits)
        change(config)
        row(f"{method}, {name}", config, args, top)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line; the defaults depend on the device."""
  cpu = jax.default_backend() == "cpu"
  numbers: Mapping[str, int] = {"size": 224, "steps": 5, "rounds": 5}
  parser = _command_line.parser(__doc__, **numbers)
  parser.add_argument("--minutes", type=float, default=5.0)
  parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
  sizes = [8, 32] if cpu else [64, 256, 1024]
  parser.add_argument("--batches", nargs="+", type=int, default=sizes)
  parser.add_argument("--sides", nargs="+", type=int, default=None)
  parser.add_argument("--teacher", default="resnet50")
  parser.add_argument("--student", default="resnet18")
  swin = "swin_large_patch4_window7_224"
  parser.add_argument("--scalekd-teacher", default=swin)
  parser.add_argument("--heads", type=int, nargs=2, default=(12, 24))
  dtype = "float32" if cpu else "bfloat16"
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=dtype)
  args = parser.parse_args(argv)
  args.sides = args.sides or ([1024, 2048] if cpu else [4096, 8192, 16384])
  return args


def main(argv: Sequence[str] | None = None) -> None:
  """Measures the peak, then the steps."""
  args = arguments(argv)
  top = peak(args.dtype, args.sides)
  print(
    f"{args.teacher} -> {args.student} (ScaleKD: {args.scalekd_teacher}), "
    f"{args.size}px, {args.dtype}; jax {jax.__version__} on "
    f"{jax.devices()[0].device_kind} ({len(os.sched_getaffinity(0))} CPU "
    f"cores); measured peak {top / 1e12:.2f} TFLOP/s\n{HEADER}"
  )
  sweep(args, top)


if __name__ == "__main__":
  main()
