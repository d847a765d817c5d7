"""Differences of runs that share their random draws, seed by seed.

Where every row of a comparison sees the same images under the same seed, most
of the spread over seeds is common to the rows and cancels in the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
  """How far one row is above another one.

  Attributes:
    per_seed: value minus baseline, of every seed.
    mean: of them.
    error: standard error of the mean, std(ddof=1) / sqrt(seeds); None with
      one seed, which says nothing about it.
  """

  per_seed: tuple[float, ...]
  mean: float
  error: float | None


def difference(
  values: Sequence[float], baseline: Sequence[float]
) -> Difference:
  """The paired difference of two rows.

  Args:
    values: one per seed.
    baseline: the same seeds in the same order.

  Raises:
    ValueError: the rows have different numbers of seeds, or none.
  """
  if len(values) != len(baseline) or not len(values):
    raise ValueError(
      f"a paired difference needs both rows at the same seeds, and got "
      f"{len(values)} and {len(baseline)} values; run both with all seeds"
    )
  each = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
  error = spread(each.tolist())
  if error is not None:
    error /= len(each) ** 0.5
  return Difference(tuple(each.tolist()), float(each.mean()), error)


def spread(values: Sequence[float]) -> float | None:
  """Standard deviation (ddof=1); None for a single value."""
  return float(np.std(values, ddof=1)) if len(values) > 1 else None
