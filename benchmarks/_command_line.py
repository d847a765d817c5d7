"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse


def parser(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
  """A parser that shows a file's docstring and takes whole numbers.

  Args:
    doc: `__doc__` of the file, shown as it is.
    **numbers: {option: default}.
  """
  found = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawTextHelpFormatter
  )
  for name, default in numbers.items():
    found.add_argument(f"--{name}", type=int, default=default)
  return found


def students(doc: str | None, steps: int) -> argparse.ArgumentParser:
  """The same for benchmarks that train students with several seeds.

  Args:
    doc: see `parser`.
    steps: default of --steps.
  """
  found = parser(doc, seeds=3, steps=steps)
  found.add_argument("--smoke", action="store_true", help="a few steps only")
  return found
