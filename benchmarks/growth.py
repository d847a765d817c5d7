r"""What a run costs as images, classes and steps grow: it should be nothing.

python -m benchmarks.growth [--parts images files classes steps] [--steps 3000]

Every case is a run of `python -m kd_jax.main` in a process of its own: KDEP
between two networks of a few thousand weights, batch 8 of 32 px, so that
whatever the package does around the step shows. 'images' are made up, 'files'
are JPEGs (hard links to 64 of them, in 1000 folders), 'classes' the labels of
100,000 made-up images. 'start' is processor time before the first step, 'step'
that of a step after the first fifth, 'memory' the anonymous memory at the end
of the run and how much of it came after the first fifth. Columns with a slash
are relative to the first row of a part. 'steps' runs --long steps (100,000) and
compares fifths of one run.

Processor time, since a shared machine's clock tells of its other users; it is
still noisy by some percent, which --rounds (3) takes the median of.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from benchmarks import _command_line
from configs import kdep_r18

PARTS = {
  "images": (1_000, 100_000, 10_000_000),
  "files": (1_000, 100_000, 1_000_000),
  "classes": (10, 1_000, 100_000),
  "steps": (),
}
FOLDERS, ORIGINALS, FIFTHS = 1000, 64, 5


class Point(NamedTuple):
  """A run after some of its steps.

  Attributes:
    step: finished ones.
    cpu: seconds of all threads of the process.
    memory: anonymous, MiB.
  """

  step: int
  cpu: float
  memory: float


def config_of(part: str, size: int, files: Path, steps: int) -> ConfigDict:
  """A tiny KDEP run on so many images, files or classes."""
  config = kdep_r18.get_config("smoke")
  with config.unlocked():
    config.steps = steps
    config.log_every = max(steps // (4 * FIFTHS), 1)
    config.checkpoint.every = 0
    config.eval.evals = ()
    config.fit.examples = 512  # else a pass over all images
    config.eval.limit = 512  # else more images are judged in the end
    config.optim.lr = 1e-3
    if part == "images":
      config.data.length = size
    elif part == "classes":
      config.data.update({"length": 100_000, "num_classes": size})
    elif part == "files":
      config.data = ConfigDict({"name": "folder", "dir": str(files)})
  return config


def link(place: Path, count: int) -> None:
  """So many small JPEGs below `place`."""
  rng = np.random.default_rng(0)
  originals = [place / ".originals" / f"{i}.jpg" for i in range(ORIGINALS)]
  originals[0].parent.mkdir(parents=True)
  for file in originals:
    colours = rng.integers(0, 256, (5, 5, 3), np.uint8)
    Image.fromarray(colours).resize((40, 40)).save(file)
  for folder in range(FOLDERS):
    (place / f"{folder:03d}").mkdir()
  for i in range(count):
    os.link(originals[i % ORIGINALS], place / f"{i % FOLDERS:03d}/{i}.jpg")


def watch(file: Path, points: list[Point], end: threading.Event) -> None:
  """Notes what this process has used whenever `file` grows by a step."""
  read = 0
  while not end.wait(0.02):
    if not file.exists() or file.stat().st_size == read:
      continue
    read = file.stat().st_size
    lines = file.read_text().splitlines()
    points.append(Point(json.loads(lines[-1])["step"], *used()))


def used() -> tuple[float, float]:
  """(processor seconds, MiB of anonymous memory) of this process."""
  lines = Path("/proc/self/status").read_text().splitlines()
  kib = next(int(x.split()[1]) for x in lines if x.startswith("RssAnon"))
  return time.process_time(), kib / 1024


def one(part: str, size: int, files: Path, steps: int) -> list[Point]:
  """Runs a case in this process; a point whenever it logs."""
  from kd_jax import main as command
  from kd_jax.tasks import pretrain

  command.prepare()
  points: list[Point] = []
  end = threading.Event()
  with tempfile.TemporaryDirectory() as where:
    target = (Path(where) / "metrics.jsonl", points, end)
    watcher = threading.Thread(target=watch, args=target, daemon=True)
    watcher.start()
    pretrain.run(config_of(part, size, files, steps), where)
    end.set()
    watcher.join()
  return points


def apart(part: str, size: int, files: Path, steps: int) -> list[Point]:
  """The same in a process of its own."""
  command = [sys.executable, "-m", "benchmarks.growth", "--one"]
  command += [part, str(size), str(files), str(steps)]
  found = subprocess.run(command, capture_output=True, text=True)
  if found.returncode:
    raise RuntimeError(found.stderr[-2000:])
  return [Point(*row) for row in json.loads(found.stdout.splitlines()[-1])]


def figures(points: Sequence[Point]) -> tuple[float, float, float, float]:
  """(start, ms per step, MiB at the end, of which after the first fifth)."""
  last = next(p for p in points if p.step == points[-1].step)  # not the report
  first = next(p for p in points if p.step >= last.step // FIFTHS)
  step = 1e3 * (last.cpu - first.cpu) / (last.step - first.step)
  return points[0].cpu, step, last.memory, last.memory - first.memory


def grow(part: str, steps: int, rounds: int) -> None:
  """Prints a row per size; sizes take turns."""
  with tempfile.TemporaryDirectory() as name:
    places = {size: Path(name) / str(size) for size in PARTS[part]}
    if part == "files":
      for size, place in places.items():
        link(place, size)
    rows: dict[int, list[tuple[float, ...]]] = {size: [] for size in places}
    for _ in range(rounds):
      for size, place in places.items():
        rows[size].append(figures(apart(part, size, place, steps)))
  middle = {
    size: [statistics.median(x) for x in zip(*row, strict=True)]
    for size, row in rows.items()
  }
  base = next(iter(middle.values()))
  print(f"{part:>12}  start s   step ms      /   MiB      /  later MiB")
  for size, (start, step, memory, later) in middle.items():
    print(
      f"{size:12,}{start:9.1f}{step:10.3f}{step / base[1]:7.3f}"
      f"{memory:6.0f}{memory / base[2]:7.3f}{later:11.1f}",
      flush=True,
    )


def long(steps: int) -> None:
  """Prints a row per fifth of one long run."""
  points = apart("images", 1_000, Path(), steps)
  print(f"{'steps until':>12}   step ms      /   MiB  added")
  edges = [
    next(p for p in points if p.step >= steps * i // FIFTHS)
    for i in range(1, FIFTHS + 1)
  ]
  base = None
  for before, after in zip([points[0], *edges], edges, strict=False):
    step = 1e3 * (after.cpu - before.cpu) / (after.step - before.step)
    base = base or step
    print(
      f"{after.step:12,}{step:10.3f}{step / base:7.3f}"
      f"{after.memory:6.0f}{after.memory - before.memory:7.1f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the parts that are asked for."""
  parser = _command_line.parser(__doc__, steps=3000, long=100_000, rounds=3)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.one:
    part, size, files, steps = args.one
    print(json.dumps(one(part, int(size), Path(files), int(steps))))
    return
  runs: dict[str, Callable[[], None]] = {"steps": lambda: long(args.long)}
  for part in args.parts:
    runs.get(part, lambda p=part: grow(p, args.steps, args.rounds))()


if __name__ == "__main__":
  main()
