"""Five training steps against PyTorch's, and where our time goes.

taskset -c 1 python -m benchmarks.pace [--profile 20] [--only NAME ...]

Both sides first prove that they compute the same, then run in turns; the ratio
is of the shortest processor times. `--profile N` also lists, per step, the
kinds of work and the N operations that take longest, as XLA's own profiler
counts them; convolutions and products with their GFLOP/s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks import _command_line, _operations, kdep_step
from benchmarks._contest import SUPERVISED, TEACHER, TORCH, measure
from kd_jax.main import keep_memory

STEPS = {
  "r50-r18-112": ["--student", "resnet18", "--size", "112"],
  "r50-r18-224": ["--student", "resnet18", "--size", "224"],
  "r50-mnv2-112": ["--student", "mobilenetv2_100", "--size", "112"],
  "convnext-112": ["--student", "convnext_atto", "--method", SUPERVISED],
  "vit-224": [
    *("--student", "vit_tiny_patch16_224", "--size", "224"),
    *("--method", SUPERVISED),
  ],
}
"""{name: arguments of `benchmarks.kdep_step`}."""


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a line of ratios per step, and profiles."""
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  keep_memory()
  parser = _command_line.parser(__doc__, rounds=7, batch=32, profile=0)
  parser.add_argument("--only", nargs="+", choices=STEPS, default=[*STEPS])
  parser.add_argument("--torch", choices=("auto", "off"), default="auto")
  parser.add_argument("--size", help="of all steps, instead of their own")
  args = parser.parse_args(argv)
  for name in args.only:
    own = [*STEPS[name], "--batch", str(args.batch), "--torch", args.torch]
    own += ["--size", args.size] if args.size else []
    print(f"\n{name}")
    pace(own, args.rounds, args.profile)


def pace(argv: Sequence[str], rounds: int, shown: int) -> None:
  """Times one step.

  Args:
    argv: arguments of `kdep_step`.
    rounds: every contender has a turn in each.
    shown: operations to list; 0 profiles nothing.
  """
  args = kdep_step.arguments(argv)
  runs, first = kdep_step.ready(args)
  turns = {
    name: run
    for name, run in runs.items()
    if name in (args.method, TEACHER) or name.startswith(TORCH)
  }
  times = measure(turns, 1, rounds)
  for name in (args.method, TEACHER):
    if name in times:
      mine, theirs = times[name], times.get(TORCH + name)
      text = f"{name:12}{min(mine.cpu) * 1e3:9.0f} ms"
      if theirs:
        ratio = min(mine.cpu) / min(theirs.cpu)
        text += f"{min(theirs.cpu) * 1e3:9.0f} ms, ratio {ratio:.2f}"
      print(f"{text}; first step {first[name]:.1f} s")
  if shown:
    found = _operations.listing(lambda: runs[args.method](1), shown)
    print(f"\n{found}")


if __name__ == "__main__":
  main()
