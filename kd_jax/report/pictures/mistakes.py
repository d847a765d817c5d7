"""Images of the classes that a network knows worst, and what it took them for.

Shown are the mistakes that it was surest of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.plots import COLORS

PER_CLASS = 8
"""Images in a row of the sheet."""

_GAP, _HEAD, _TITLE, _LINE = 10, 32, 20, 18


@dataclasses.dataclass(frozen=True)
class Mistake:
  """An image that was taken for something else.

  Attributes:
    image: its evaluation view.
    said: name of the class that was predicted.
    confidence: its probability.
  """

  image: sheet_lib.Pixels
  said: str
  confidence: float


def chosen(
  label: Int[np.ndarray, " n"],
  prediction: Int[np.ndarray, " n"],
  confidence: Float[np.ndarray, " n"],
  classes: Sequence[int],
  most: int = PER_CLASS,
) -> dict[int, list[int]]:
  """{class: rows of its surest mistakes, the surest first}.

  Args:
    label: the truth; -1 is ignored.
    prediction: classes.
    confidence: probability of each prediction.
    classes: that are looked at.
    most: rows of a class.
  """
  found = {}
  for index in classes:
    rows = np.flatnonzero((label == index) & (prediction != index))
    order = np.argsort(-confidence[rows], kind="stable")
    found[index] = rows[order[:most]].tolist()
  return found


def draw(groups: Sequence[tuple[str, Sequence[Mistake]]]) -> bytes:
  """A PNG: a row per class, with its title above it.

  Args:
    groups: (title, mistakes); at most `PER_CLASS` of a class are shown.
  """
  side = sheet_lib.WIDTH / PER_CLASS - _GAP
  height = _TITLE + side + _LINE + _GAP
  page = sheet_lib.Sheet(round(_HEAD + len(groups) * height))
  title = "Surest mistakes in the worst classes: taken for, and how surely"
  page.text(title, 0, 4, size=13, bold=True)
  for row, (name, mistakes) in enumerate(groups):
    top = _HEAD + row * height
    page.text(name, 0, top, bold=True)
    for column, each in enumerate(mistakes[:PER_CLASS]):
      left = column * (side + _GAP)
      page.image(each.image, left, top + _TITLE, side)
      # A class's name is cut as below other sheets' images.
      said = sheet_lib.class_name(0, (each.said,), 11)
      page.text(
        f"{said} {each.confidence:.2f}",
        left + side / 2,
        top + _TITLE + side + 3,
        color=COLORS[1],
        center=True,
      )
  return page.png()
