"""Training from a bank, decoding included, next to a plain supervised step.

  python -m benchmarks.bank_loop [--teachers resnet50 ...] [--batch 8]

FKD (ECCV 2022) promises that stored targets make distillation as cheap as
supervised training. Here whole loops take turns: reading and decoding the JPEGs
of benchmarks/input.py, m crops of each, the bank's bytes, the step. 'bank' and
'online' are KDEP with stored int8 directions and with the teacher running;
'supervised' is the same student on labels, with the same crops. cpu is
processor time of all threads, a ratio of minima; wall the median ratio of the
rounds. 'input' is how many times as fast images are read (alone, by all cores)
as the bank's step consumes them: below 1 the host binds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import kd_jax
from benchmarks import _command_line, bank
from benchmarks.input import machine, photographs
from benchmarks.kdep_step import Run, measure
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import folder
from kd_jax.interfaces import DataSource
from kd_jax.types import Batch

WAYS = {"bank": "kdep bank", "online": "kdep online", "plain": "supervised"}
HEADER = (
  f"{'':14}bank / supervised      online / supervised    bank's   input\n"
  f"{'crops':>14}     cpu    wall             cpu    wall   views/s"
)


def looped(
  advance: Callable[[Batch], Any],
  stream: Iterator[Batch],
  labels: Iterator[int],
) -> Run:
  """Steps that read their batches; a photograph's label is a number."""

  def run(steps: int) -> float:
    for _ in range(steps):
      batch = next(stream)
      label = np.full(len(batch.label), next(labels), np.int32)
      loss = advance(batch.replace(label=label))
    return float(loss)

  return run


def compare(
  args: argparse.Namespace,
  ways: Mapping[str, bank.Contender],
  artifact: Mapping[str, Any],
  source: DataSource,
  crops: int,
) -> str:
  """The row of a number of crops."""
  views = Preprocess(image_size=args.size, num_crops=crops)
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(tempfile.TemporaryDirectory())
    stored = bank.empty_bank(place, source, views)
    runs = {}
    for name, way in WAYS.items():
      stream = pipeline.train_batches(
        source,
        views,
        batch_size=args.batch,
        seed=0,
        bank=stored if name == "bank" else None,
      )
      advance = bank.stepper(args.student, ways[way], artifact)
      batches = stack.enter_context(stream)
      runs[name] = looped(advance, batches, itertools.cycle(range(10)))
      runs[name](1)
    times = measure(runs, args.steps, args.rounds)
    alone, _ = bank.views_per_second(source, views, stored, args.seconds)
  cells = ""
  for name in ("bank", "online"):
    wall, cpu = bank.ratio(times[name], times["plain"])
    cells += f"{cpu:9.3f}{wall:8.3f}      "
  rate = args.batch / min(times["bank"].wall)
  bound = "  the host binds" if alone < rate else ""
  return f"{crops:14}{cells}{rate:9.1f}{alone / rate:8.2f}{bound}"


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table per teacher."""
  numbers = {"batch": 8, "size": 224, "steps": 2, "rounds": 5, "images": 64}
  parser = _command_line.parser(__doc__, **numbers)
  teachers = ["resnet50", "swin_large_patch4_window7_224"]
  parser.add_argument("--teachers", nargs="+", default=teachers)
  parser.add_argument("--student", default="resnet18")
  parser.add_argument("--crops", nargs="+", type=int, default=[1, 4, 8])
  parser.add_argument("--seconds", type=float, default=5.0)
  args = parser.parse_args(argv)
  print(machine())
  width = kd_jax.create_model(args.student).num_features
  image = np.zeros((args.batch, args.size, args.size, 3), np.uint8)
  with tempfile.TemporaryDirectory() as name:
    photographs(Path(name), args.images)
    source = folder.Source(name)
    for teacher in args.teachers:
      ways, artifact = bank.contenders(teacher, width, image)
      print(f"{teacher} -> {args.student}, {args.batch} views of {args.size}px")
      print(HEADER)
      for crops in args.crops:
        print(compare(args, ways, artifact, source, crops), flush=True)
      jax.clear_caches()


if __name__ == "__main__":
  main()
