"""Several runs side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kd_jax import disk
from kd_jax.door import arguments
from kd_jax.report import tables
from kd_jax.report.compared import record, sheet
from kd_jax.report.run import summary


def compare(
  runs: Sequence[str | os.PathLike[str]],
  out: str | os.PathLike[str] = "comparison.html",
) -> Path:
  """Writes a page with the curves, figures and settings of several runs.

  Args:
    runs: their folders, two at least.
    out: the page, a .html file that opens without a network.

  Returns:
    `out`.

  Raises:
    ValueError: fewer than two runs, one of them twice, none, unfinished
      business in one of them, or a page that cannot be written.
  """
  target = arguments.file("out", arguments.text("out", out), (".html",))
  if isinstance(runs, str | os.PathLike) or not isinstance(runs, Iterable):
    raise ValueError(f"runs is {runs!r}; it must be a list of folders")
  said = [arguments.text("a run", each) for each in runs]
  folders = _folders(said)
  names = _names(said)
  found = [record.read(*pair) for pair in zip(folders, names, strict=True)]
  try:
    disk.write(target, sheet.page(found).encode())
  except OSError as error:
    raise ValueError(
      f"{target} cannot be written ({error.strerror}); choose another out"
    ) from error
  table = sheet.figures(found)
  rows = [[tables.cell(x) for x in row] for row in table.rows]
  summary.say(f"{tables.columns([table.header, *rows])}\n\npage: {target}")
  return target


def _folders(runs: Sequence[str]) -> list[Path]:
  """Raises ValueError unless they are two folders that differ, or more."""
  if len(runs) < 2:
    many = "1 run is" if runs else "no run is"
    raise ValueError(f"{many} named, and a comparison needs two at least")
  away = [each for each in runs if "://" in each]
  if away:
    raise ValueError(
      f"{away[0]} is a URL; this command compares folders of this machine"
    )
  found: dict[Path, str] = {}
  for each in runs:
    place = Path(each).expanduser().resolve()
    if place in found:
      raise ValueError(
        f"{each} and {found[place]} are the same folder; name every run once"
      )
    found[place] = each
  return [Path(each).expanduser() for each in runs]


def _names(runs: Sequence[str]) -> list[str]:
  """The names of the folders, or their paths where these are not enough."""
  short = [Path(each).expanduser().resolve().name for each in runs]
  return short if len({*short}) == len(short) else [*runs]
