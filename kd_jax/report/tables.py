"""Numbers and tables as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from kd_jax import types

_TAP_ORDER = (*types.STAGES[:-1], "feature", "pooled", "logits")


def summary(values: Mapping[str, Any]) -> str:
  """Two aligned columns, one line per label; numbers are made readable."""
  return columns([[label, show(value)] for label, value in values.items()])


def tap_table(specs: Mapping[str, types.Specs]) -> str:
  """A table of tap shapes, one column per network, in the order they run.

  Args:
    specs: {'student': {tap: spec}, 'teacher': {tap: spec}}; the first
      dimension is the batch and shows as n.
  """
  taps = sorted({tap for side in specs.values() for tap in side}, key=_rank)
  rows = [
    [
      tap,
      *(_shape(side[tap]) if tap in side else "-" for side in specs.values()),
    ]
    for tap in taps
  ]
  return columns([["tap", *specs], *rows])


def digits(value: float) -> str:
  """Four significant digits, zeros kept so that columns stand still."""
  value = float(value)
  if 1000 <= abs(value) < 1e7:
    return f"{value:,.0f}"
  return f"{value:#.4g}".rstrip(".")


def show(value: Any) -> str:
  """A value as a person reads it: 1,234,567; 0.1; yes; text as it is."""
  if isinstance(value, bool | np.bool_):
    return "yes" if value else "no"
  if isinstance(value, int | np.integer):
    return f"{value:,}"
  if isinstance(value, float | np.floating):
    return digits(float(value)) if abs(value) >= 1000 else f"{value:.4g}"
  return str(value)


def columns(rows: Iterable[Iterable[str]]) -> str:
  """Rows of equal length as aligned lines of text."""
  table = [list(row) for row in rows]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  padded = (map(str.ljust, row, widths) for row in table)
  return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _rank(tap: str) -> tuple[float, str]:
  # Taps of other names (a transformer's blocks) lie between stages and head.
  known = tap in _TAP_ORDER
  rank = _TAP_ORDER.index(tap if known else "feature")
  return (rank if known else rank - 0.5, tap)


def _shape(spec: jax.ShapeDtypeStruct) -> str:
  return " x ".join(["n", *map(str, spec.shape[1:])])
