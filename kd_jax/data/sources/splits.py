"""Split syntax: 'train', 'train[:500]', 'train[50%:]', as in TFDS."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BOUND = r"(-?\d+%?)?"
_SYNTAX = re.compile(rf"(\w+)(?:\[{_BOUND}:{_BOUND}\])?")


def parse(split: str, sizes: Mapping[str, int]) -> tuple[str, int, int]:
  """Reads a split and resolves its bounds.

  Args:
    split: a name, or a name with [start:stop]; a bound is a number of records
      or a whole percentage, negative ones count from the end.
    sizes: number of records of every split that exists.

  Returns:
    (name, start, stop) with 0 <= start < stop <= sizes[name].

  Raises:
    ValueError: bad syntax, unknown name, a bound outside, or nothing left.
  """
  match = _SYNTAX.fullmatch(split)
  if match is None:
    raise ValueError(
      f"split={split!r} is not 'name', 'name[start:stop]' or 'name[a%:b%]'; "
      f"names are {sorted(sizes)}. Write 'all[:500]' or 'all[50%:]' alike."
    )
  name, low, high = match.groups()
  if name not in sizes:
    raise ValueError(
      f"split={split!r} names {name!r}; the source has {sorted(sizes)}"
    )
  size = sizes[name]
  start = _resolve(low, split, size, default=0)
  stop = _resolve(high, split, size, default=size)
  if start >= stop:
    raise ValueError(
      f"split={split!r} is empty: it is records {start} to {stop} of {size}; "
      "widen it"
    )
  return name, start, stop


def _resolve(bound: str | None, split: str, size: int, *, default: int) -> int:
  if bound is None:
    return default
  if bound.endswith("%"):
    index, limit = int(bound[:-1]), 100
  else:
    index, limit = int(bound), size
  if abs(index) > limit:
    raise ValueError(
      f"split={split!r}: bound {bound} is outside; allowed is at most {limit}"
      f"{'%' if bound.endswith('%') else f' (there are {size} records)'}"
    )
  index = index + limit if bound.startswith("-") else index
  return round(index * size / limit)
