"""Sheets of images and what each network makes of them, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kd_jax.report.pictures import sheet as sheet_lib

_GAP, _BETWEEN, _HEAD, _MOST = 8, 24, 26, 215


def draw(
  columns: Mapping[str, Sequence[sheet_lib.Pixels]], halves: int = 2
) -> bytes:
  """A PNG: under each heading as many tiles, a row per image, in two halves.

  Args:
    columns: heading -> the same number of tiles each.
    halves: 1 for one column of rows.
  """
  count = min(map(len, columns.values()))
  halves = min(count, halves)
  room = (sheet_lib.WIDTH - (halves - 1) * _BETWEEN) / halves
  side = min((room + _GAP) / len(columns) - _GAP, _MOST)
  rows = -(-count // halves)
  page = sheet_lib.Sheet(round(_HEAD + rows * (side + _GAP)))
  for number, (name, tiles) in enumerate(columns.items()):
    for half in range(halves):
      left = half * (room + _BETWEEN) + number * (side + _GAP)
      page.text(name, left, 4, size=13, bold=True)
      for row, tile in enumerate(tiles[half::halves]):
        page.image(tile, left, _HEAD + row * (side + _GAP), side)
  return page.png()


def missing(reasons: Mapping[str, str]) -> str:
  """'Left out: the teacher, which has no map.', or ''.

  Args:
    reasons: network -> why it is not shown, as a subordinate clause.
  """
  parts = [f"the {name}, {reason}" for name, reason in reasons.items()]
  return f"Left out: {'; '.join(parts)}." if parts else ""
