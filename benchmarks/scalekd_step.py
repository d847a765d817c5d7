"""Time and memory of one ScaleKD training step, against KDEP's for the pair.

python -m benchmarks.scalekd_step [--teacher swin_tiny_patch4_window7_224]
  [--student resnet18] [--batch 16] [--size 224] [--dtype float32]

All contenders have the same teacher, student, optimizer and images without
labels; ScaleKD runs without rematerialisation, and with the two kinds of it
that config.method.remat offers. They take turns; ratios are medians over the
rounds. 'compiled' is what the compiled step allocates: its arguments (weights,
moments, images), results and temporaries. 'estimated' is what the start-up
summary says, before anything is compiled; 'activations' are its share that
rematerialisation can save. The batch already lies on the device: no input
pipeline is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import _command_line
from configs.common import base
from configs.common_scalekd import SWIN_WEIGHTS
from kd_jax.build.experiment import experiment
from kd_jax.report import tables
from kd_jax.report.run import memory, throughput
from kd_jax.types import Batch

KDEP = "KDEP"
REMAT = ("none", "dots", "full")
HEADER = ("", "ms / step", "/ KDEP", "compiled GB", "estimated GB")


def common(args: argparse.Namespace) -> ConfigDict:
  """KDEP from an untrained teacher; the digits are never read."""
  config = base()
  config.batch_size, config.dtype = args.batch, args.dtype
  config.preprocess.image_size = args.size
  config.student.update({"name": args.student, "overrides": {"num_classes": 0}})
  fields = {"img_size": args.size, "num_classes": 0}
  config.teacher.update({"source": "random", "name": args.teacher})
  config.teacher.overrides = ConfigDict(fields)
  config.optim.update({"name": "lamb", "weight_decay": 0.02})
  config.eval.evals = ()
  return config


def scalekd(args: argparse.Namespace, remat: str) -> ConfigDict:
  """The features' terms of configs/scalekd_r50.py."""
  config = common(args)
  config.method = ConfigDict(
    {
      "name": "scalekd",
      "student": ("stage3", "stage4"),
      "target": "final",
      "resume": "stage4",
      "heads": tuple(args.heads),
      "sharpness": 5.0,
      "norm": "batch",
      "kd_temperature": 1.0,
      "remat": remat,
    }
  )
  names = ("proxy", "final"), ("proxy_alt", "final_alt")
  config.losses = ConfigDict(
    {
      name: weight
      for view, weight in zip(names, SWIN_WEIGHTS, strict=True)
      for name in view
    }
  )
  return config


class Contender:
  """A train step, compiled.

  Attributes:
    compiled: gigabytes that its program allocates.
    estimated: gigabytes by the start-up summary, by what needs them.
  """

  def __init__(self, config: ConfigDict, where: Path) -> None:
    parts = experiment(config, where)
    rows, size = config.batch_size, config.preprocess.image_size
    rng = np.random.default_rng(0)
    batch = Batch(
      image=rng.integers(0, 256, (rows, size, size, 3), np.uint8),
      label=np.zeros(rows, np.int32),
      mask=np.ones(rows, np.float32),
    )
    phase = parts.stretches[0].phase
    step, self._state, *self._rest = throughput.ready(parts, phase, batch)
    self._step = step.lower(self._state, *self._rest).compile()
    needs = self._step.memory_analysis()
    self.compiled = 1e-9 * (
      needs.argument_size_in_bytes
      + needs.output_size_in_bytes
      - needs.alias_size_in_bytes
      + needs.temp_size_in_bytes
    )
    self.estimated = memory.estimate(parts)

  def run(self, steps: int) -> float:
    """Seconds per step."""
    start = time.perf_counter()
    for _ in range(steps):
      self._state, found = self._step(self._state, *self._rest)
    loss = float(found["loss/total"])
    assert np.isfinite(loss), loss
    return (time.perf_counter() - start) / steps


def measure(
  contenders: dict[str, Contender], steps: int, rounds: int
) -> list[Sequence[Any]]:
  """Rows of the table."""
  seconds: dict[str, list[float]] = {name: [] for name in contenders}
  for contender in contenders.values():
    contender.run(1)
  for _ in range(rounds):
    for name, contender in contenders.items():
      seconds[name].append(contender.run(steps))
  rows = []
  for name, contender in contenders.items():
    pairs = zip(seconds[name], seconds[KDEP], strict=True)
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    total = sum(contender.estimated.values())
    part = contender.estimated["activations"]
    rows.append(
      (
        name,
        f"{1e3 * statistics.median(seconds[name]):.0f}",
        f"{ratio:.2f}",
        f"{contender.compiled:.2f}",
        f"{total:.2f} (activations {part:.2f})",
      )
    )
  return rows


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  numbers = {"batch": 16, "size": 224, "steps": 1, "rounds": 7}
  parser = _command_line.parser(__doc__, **numbers)
  parser.add_argument("--teacher", default="swin_tiny_patch4_window7_224")
  parser.add_argument("--student", default="resnet18")
  parser.add_argument(
    "--heads", type=int, nargs=2, default=(3, 6), help="of the projectors"
  )
  types = ("float32", "bfloat16")
  parser.add_argument("--dtype", choices=types, default=types[0])
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Compiles all, times them in turns, and prints one table."""
  args = arguments(argv)
  with tempfile.TemporaryDirectory() as folder:
    where = Path(folder)
    contenders = {KDEP: Contender(common(args), where)}
    for remat in REMAT:
      name = f"ScaleKD, remat {remat}"
      contenders[name] = Contender(scalekd(args, remat), where)
  print(
    f"{args.teacher} -> {args.student}, batch {args.batch} of {args.size}px, "
    f"{args.dtype}; jax {jax.__version__} on {jax.devices()[0].device_kind} "
    f"({len(os.sched_getaffinity(0))} CPU cores)"
  )
  rows = measure(contenders, args.steps, args.rounds)
  print(tables.columns([HEADER, *rows]))


if __name__ == "__main__":
  main()
