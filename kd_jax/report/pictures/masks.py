"""Masks over their images: the truth and what was predicted, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from kd_jax.report.pictures import palette
from kd_jax.report.pictures import sheet as sheet_lib

_GAP, _HEAD, _LINE, _SWATCH = 10, 54, 18, 12
_PER_ROW = 6  # Names of the legend.
_SHARE = 0.7  # Of the mask's colour; the rest is the image in grey.


@dataclasses.dataclass(frozen=True)
class Segmented:
  """An image with its masks, all of one size.

  Attributes:
    image: as it was read.
    truth: classes; -1 is ignored.
    prediction: classes.
  """

  image: UInt8[np.ndarray, "h w 3"]
  truth: Int[np.ndarray, "h w"]
  prediction: Int[np.ndarray, "h w"]


def draw(shown: Sequence[Segmented], names: Sequence[str]) -> bytes:
  """A PNG: a row per image, and the colours of the classes that occur.

  Args:
    shown: the images.
    names: of all classes, in order.

  Raises:
    ValueError: a mask is not as large as its image.
  """
  for each in shown:
    sizes = {x.shape[:2] for x in (each.image, each.truth, each.prediction)}
    if len(sizes) > 1:
      raise ValueError(
        f"image, truth and prediction have the sizes {sorted(sizes)}; resize "
        "the image to its mask before it is drawn"
      )
  side = (sheet_lib.WIDTH - 2 * _GAP) / 3
  heights = [_height(each, side) for each in shown]
  occurring = _occurring(shown)
  lines = -(-len(occurring) // _PER_ROW)
  bottom = _HEAD + round(sum(heights) + _GAP * len(heights))
  page = sheet_lib.Sheet(bottom + lines * _LINE + _GAP)
  page.text("Masks; grey stripes are ignored", 0, 4, size=13, bold=True)
  for column, words in enumerate(("image", "truth", "prediction")):
    page.text(words, column * (side + _GAP), 32, bold=True)
  top = float(_HEAD)
  for each, height in zip(shown, heights, strict=True):
    # An image is drawn in the middle of a square.
    above = top - (side - height) / 2
    for column, pixels in enumerate(_three(each, len(names))):
      page.image(pixels, column * (side + _GAP), above, side)
    top += height + _GAP
  _legend(page, occurring, names, bottom)
  return page.png()


def overlaid(
  image: UInt8[np.ndarray, "h w 3"], mask: Int[np.ndarray, "h w"], classes: int
) -> UInt8[np.ndarray, "h w 3"]:
  """The colours of a mask on the grey image."""
  grey = image.mean(-1, keepdims=True)
  found = _SHARE * palette.painted(mask, classes) + (1 - _SHARE) * grey
  return np.rint(found).astype(np.uint8)


def _three(
  each: Segmented, classes: int
) -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
  masks = (each.truth, each.prediction)
  return (each.image, *(overlaid(each.image, x, classes) for x in masks))


def _height(each: Segmented, side: float) -> float:
  height, width = each.truth.shape
  return side * min(height / width, 1.0)


def _occurring(shown: Sequence[Segmented]) -> list[int]:
  masks = [x.reshape(-1) for s in shown for x in (s.truth, s.prediction)]
  found = np.unique(np.concatenate([*masks, np.zeros(0, np.int32)]))
  return found[found >= 0].astype(int).tolist()


def _legend(
  page: sheet_lib.Sheet,
  classes: Sequence[int],
  names: Sequence[str],
  top: float,
) -> None:
  """A square of every colour with the name of its class."""
  colours, width = palette.colours(len(names)), sheet_lib.WIDTH / _PER_ROW
  for number, index in enumerate(classes):
    row, column = divmod(number, _PER_ROW)
    place = (column * width, top + row * _LINE)
    page.image(colours[index][None, None], *place, _SWATCH)
    words = sheet_lib.class_name(index, tuple(names), 18)
    page.text(words, place[0] + _SWATCH + 5, place[1] - 1)
