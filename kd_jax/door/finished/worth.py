"""What features are worth: figures, for people and for scripts."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax import disk
from kd_jax.report import markup, tables
from kd_jax.transfer.protocol import mean_and_error

RESULTS, REPORT = "results.json", "report.html"

WORDS = {"knn": "nearest neighbours", "probe": "linear probe"}
"""What protocols are called in tables."""


@dataclasses.dataclass(frozen=True)
class Worth:
  """What `evaluate` finds.

  Attributes:
    model: what was judged, as it was named.
    images: the folder.
    val: the folder for test; '' where it is a part of `images`.
    classes: their names.
    train_images: that were learnt from.
    test_images: that the figures are of.
    left_out: images that could not be read.
    per_class: images of each class that were learnt from; 0 for all.
    seed: of the split and the draws.
    image_size: pixels.
    figures: network -> protocol -> share of test images that are right, one
      value per draw of images to learn from.
    guess: the same of whoever always says the most frequent class.
  """

  model: str
  images: str
  val: str
  classes: Sequence[str]
  train_images: int
  test_images: int
  left_out: int
  per_class: int
  seed: int
  image_size: int
  figures: Mapping[str, Mapping[str, Sequence[float]]]
  guess: float

  def error(self, values: Sequence[float]) -> float:
    """Standard error of a mean: over draws, or of one by its test images."""
    mean, error = mean_and_error(values)
    if error is not None:
      return error
    return float(np.sqrt(mean * (1 - mean) / self.test_images))

  @property
  def table(self) -> tables.Table:
    """A row per network."""
    protocols = list(next(iter(self.figures.values())))
    rows = [
      (name, *(self._cell(found.get(each, ())) for each in protocols))
      for name, found in self.figures.items()
    ]
    guess = f"{100 * self.guess:.1f} %"
    rows.append(("most frequent class", *(guess for _ in protocols)))
    header = ("", *(WORDS[each] for each in protocols))
    return tables.Table.of("Images that are classified right", header, rows)

  def _cell(self, values: Sequence[float]) -> str | None:
    if not values:
      return None
    return f"{100 * np.mean(values):.1f} ± {100 * self.error(values):.1f} %"

  def lines(self) -> list[str]:
    """How the figures came about."""
    learnt = f"{self.train_images:,} to learn from"
    if self.per_class:
      draws = len(next(iter(next(iter(self.figures.values())).values())))
      learnt += f", {self.per_class} of each class in {draws} draws"
    tested = f"{self.test_images:,} for test"
    if not self.val:
      tested += " (a fifth of every class, at random)"
    what = "of the draws" if self.per_class else "by the number of test images"
    lines = [
      f"{len(self.classes)} classes; images: {learnt}; {tested}",
      f"images of {self.image_size} px; ± is the standard error {what}",
    ]
    if self.left_out:
      lines.append(f"{self.left_out} images cannot be read and are left out")
    return lines


def show(found: Worth) -> str:
  """The table and its lines, as text."""
  table = found.table
  rows = [[x if x is not None else "-" for x in row] for row in table.rows]
  return "\n".join([tables.columns([table.header, *rows]), "", *found.lines()])


def write(found: Worth, folder: Path) -> None:
  """Writes results.json and report.html to a folder.

  Raises:
    ValueError: it cannot be written.
  """
  title = f"What {found.model} is worth on {found.images}"
  body = [markup.headed(title, 1, markup.table(found.table))]
  body += [f"<p class=note>{html.escape(line)}</p>" for line in found.lines()]
  text = json.dumps(_plain(found), indent=2) + "\n"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(folder / RESULTS, text.encode())
    disk.write(folder / REPORT, markup.page(title, "".join(body)).encode())
  except OSError as error:
    raise ValueError(
      f"{folder} cannot be written ({error.strerror}); choose another out"
    ) from error


def _plain(found: Worth) -> dict[str, Any]:
  return {**dataclasses.asdict(found), "classes": list(found.classes)}
