"""Where the seconds go from a command to its first step.

python -m benchmarks.start [--config FILE] [--rounds 1] [--keep DIR]

Runs `python -m kd_jax.main` in fresh processes: first with an empty
compilation cache ('cold'), then with what that left there ('warm'); and says
what `import kd_jax` and the two --help take. Each second stands in one row,
what no row knows in 'rest'. 'cpu' are processor seconds of all threads, which
busy neighbours change less than 'wall'; tracing, lowering and compiling (or
reading what was compiled) are parts of a row's wall time, as JAX tells them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _command_line

SHORT = {
  "import kd_jax": ("-c", "import kd_jax"),
  "kd-jax --help": ("-m", "kd_jax", "--help"),
  "kd_jax.main --help": ("-m", "kd_jax.main", "--help"),
}
KINDS = ("trace", "lower", "compile")


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the tables."""
  parser = _command_line.parser(__doc__, rounds=1)
  parser.add_argument("--config", default="configs/kdep_r18.py:smoke")
  parser.add_argument("--most", type=int, default=12, help="rows per list")
  args = parser.parse_args(argv)
  for name, command in SHORT.items():
    wall, cpu = min(used([sys.executable, *command]) for _ in range(3))
    print(f"{name:<20}{wall:8.2f} s wall{cpu:8.2f} s cpu")
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as folder:
      for temperature in ("cold", "warm"):
        found = run(args.config, Path(folder))
        print(f"\n{args.config}, {temperature}")
        print(table(found, args.most))


def used(command: Sequence[str]) -> tuple[float, float]:
  """(wall, processor) seconds of a command.

  Raises:
    CalledProcessError: it failed.
  """
  before, began = _children(), time.monotonic()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  return time.monotonic() - began, _children() - before


def run(config: str, folder: Path) -> dict[str, Any]:
  """What a run of a config took.

  Args:
    config: path[:variant].
    folder: of the compilation cache; the run has another one.

  Raises:
    CalledProcessError: the run failed.
  """
  out = folder / "told.json"
  cache = {"HOME": str(folder)}
  with tempfile.TemporaryDirectory() as where:
    command = (sys.executable, "-m", "benchmarks._start_clock", str(out))
    tail = ("--config", config, "--workdir", f"{where}/run")
    subprocess.run(
      [*command, repr(time.time()), *tail],
      check=True,
      env={**os.environ, **cache},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
  return json.loads(out.read_text())


def table(found: Mapping[str, Any], most: int) -> str:
  """Rows of phases, then the dearest packages and programs.

  Args:
    found: what `run` returned.
    most: rows of the two lists.
  """
  heads = ("wall", "cpu", *KINDS)
  lines = ["".join([f"{'':<22}", *(f"{head:>9}" for head in heads)])]
  for row in found["phases"]:
    lines.append(_row(row["name"], [row.get(head, 0.0) for head in heads]))
  whole = [sum(r.get(head, 0.0) for r in found["phases"]) for head in heads]
  first = found["first"]
  lines.append(_row("to the first step", [first["wall"], first["cpu"]]))
  lines.append(_row("to the end", whole))
  programs = sorted(found["programs"], key=lambda pair: -pair[1])
  lines.append(
    f"{first['programs']} programs to the first step, {len(programs)} in all"
  )
  lines += [f"  {name:<30}{seconds:9.2f}" for name, seconds in programs[:most]]
  packages = sorted(found["imports"].items(), key=lambda pair: -pair[1])
  lines.append(f"{len(first['modules'])} modules to the first step; packages")
  lines += [f"  {name:<30}{seconds:9.2f}" for name, seconds in packages[:most]]
  return "\n".join(lines)


def _row(name: str, numbers: Sequence[float]) -> str:
  return "".join([f"{name:<22}", *(f"{number:9.2f}" for number in numbers)])


def _children() -> float:
  found = resource.getrusage(resource.RUSAGE_CHILDREN)
  return found.ru_utime + found.ru_stime


if __name__ == "__main__":
  main()
