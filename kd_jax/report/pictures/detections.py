"""Boxes and masks over their images: the truth beside what was predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from kd_jax.data import examples
from kd_jax.data.formats.objects import runs
from kd_jax.data.preprocess import pixels
from kd_jax.interfaces import DataSource
from kd_jax.report.pictures import palette
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.transfer.average_precision import images, rle
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.truth import Truth

_GAP, _HEAD, _TITLE = 10, 54, 20
_COLUMNS = ("truth", "prediction")
_SHARE = 0.5  # Of a mask's colour; the rest is the image.
_LETTER, _LABEL = 5.5, 12  # Width and height of a label's letters, pixels.


@dataclasses.dataclass(frozen=True)
class Marked:
  """Objects of an image, the surest first.

  Attributes:
    boxes: (x0, y0, x1, y1), pixels.
    classes: from 0 on; -1 is black: it is ignored.
    scores: None for the truth.
    masks: of the size of the image; None without.
  """

  boxes: Float[np.ndarray, "k 4"]
  classes: Int[np.ndarray, " k"]
  scores: Float[np.ndarray, " k"] | None = None
  masks: Sequence[Bool[np.ndarray, "h w"]] | None = None


@dataclasses.dataclass(frozen=True)
class Shown:
  """An image with what is and what was found in it.

  Attributes:
    image: as it was read.
    truth: ignored objects have class -1.
    said: the prediction.
    title: a line above it.
  """

  image: UInt8[np.ndarray, "h w 3"]
  truth: Marked
  said: Marked
  title: str = ""


def draw(
  shown: Sequence[Shown], names: Sequence[str], title: str = "Detections"
) -> bytes:
  """A PNG: a row per image, the truth on the left.

  Args:
    shown: the images.
    names: of all classes, in order.
    title: of the sheet.
  """
  side = (sheet_lib.WIDTH - _GAP) / 2
  heights = [_height(each.image, side) for each in shown]
  page = sheet_lib.Sheet(
    round(_HEAD + sum(heights) + (_TITLE + _GAP) * len(shown))
  )
  page.text(title, 0, 4, size=13, bold=True)
  for column, words in enumerate(_COLUMNS):
    page.text(words, column * (side + _GAP), 32, bold=True)
  top = float(_HEAD)
  for each, height in zip(shown, heights, strict=True):
    page.text(each.title, 0, top)
    # An image is drawn in the middle of a square.
    above = top + _TITLE - (side - height) / 2
    for column, marked in enumerate((each.truth, each.said)):
      place = (column * (side + _GAP), above, side)
      _picture(page, each.image, marked, tuple(names), place)
    top += _TITLE + height + _GAP
  return page.png()


def of(
  image: UInt8[np.ndarray, "h w 3"], matched: images.Matched, index: int
) -> Shown:
  """An image with its objects, and its detections from some score on.

  Args:
    image: as it was read.
    matched: of all images.
    index: which of them it is.

  Raises:
    ValueError: the image is of another size than its objects say.
  """
  size = matched.truth.size(index)
  if image.shape[:2] != size:
    raise ValueError(
      f"image {index} has {image.shape[0]} x {image.shape[1]} pixels and its "
      f"objects were marked in {size[0]} x {size[1]}; repair the annotations"
    )
  hit, objects, wrong = matched.counts(index)
  title = (
    f"image {matched.truth.image_ids[index]}: {hit} of {objects} found, "
    f"{wrong} wrong"
  )
  return Shown(image, _truth(matched, index), _said(matched, index), title)


def extremes(
  source: DataSource, matched: images.Matched, count: int
) -> dict[str, bytes]:
  """{'best': PNG, 'worst': PNG}: the images of the highest and lowest F1.

  Args:
    source: whose images they are; only those that are drawn are read.
    matched: detections and objects.
    count: of images on each sheet; one without any is left out.

  Raises:
    ValueError: an image cannot be decoded.
  """
  best, worst = matched.ends(count)
  return {
    name: draw(
      shown(source, matched, rows),
      matched.truth.names,
      f"{name.capitalize()} images by F1 (scores from {matched.least:g} on)",
    )
    for name, rows in (("best", best), ("worst", worst))
    if rows
  }


def shown(
  source: DataSource, matched: images.Matched, rows: Sequence[int]
) -> list[Shown]:
  """Images of a source, ready to be drawn.

  Raises:
    ValueError: an image cannot be decoded.
  """
  decoded = examples.Decoded(source)
  return [of(pixels(decoded[row]), matched, row) for row in rows]


def _truth(matched: images.Matched, index: int) -> Marked:
  truth = matched.truth
  rows = np.arange(len(truth.classes))[truth.of(index)]
  return Marked(
    truth.boxes[rows],
    np.where(truth.ignored[rows], -1, truth.classes[rows]),
    masks=_masks(truth, rows, truth.size(index)),
  )


def _said(matched: images.Matched, index: int) -> Marked:
  said = matched.said
  rows = np.arange(len(said.scores))[said.of(index)]
  rows = rows[np.argsort(-said.scores[rows], kind="stable")]
  rows = rows[said.scores[rows] >= matched.least]
  masks = _masks(said, rows, matched.truth.size(index))
  return Marked(said.boxes[rows], said.classes[rows], said.scores[rows], masks)


def _masks(
  known: Truth | Detections, rows: Int[np.ndarray, " k"], size: rle.Size
) -> list[Bool[np.ndarray, "h w"]] | None:
  if known.masks is None:
    return None
  return [runs.decode(known.masks[row], size) for row in rows]


def _picture(
  page: sheet_lib.Sheet,
  image: UInt8[np.ndarray, "h w 3"],
  marked: Marked,
  names: tuple[str, ...],
  place: tuple[float, float, float],
) -> None:
  painted = _colours(marked, len(names))
  pixels = overlaid(image, marked.masks or (), list(painted))
  left, top, scale = page.image(pixels, *place)
  # The surest last, on top of the others; labels on top of boxes.
  order = range(len(painted))[::-1]
  for row in order:
    x0, y0, x1, y1 = (scale * float(x) for x in marked.boxes[row])
    box = (left + x0, top + y0, x1 - x0, y1 - y0)
    page.box(*box, "white", thick=3)
    page.box(*box, _hex(painted[row]), thick=2)
  last = left + scale * image.shape[1]
  for row in order:
    words = _words(marked, row, names)
    x, y = (scale * float(side) for side in marked.boxes[row, :2])
    x = max(min(left + x, last - _LETTER * len(words)), left)
    page.label(words, x, max(top + y - _LABEL, top), _hex(painted[row]))


def _colours(marked: Marked, classes: int) -> UInt8[np.ndarray, "k 3"]:
  # The first colour is black, for the background: here for what is ignored.
  return palette.colours(classes + 1)[1 + marked.classes]


def _hex(colour: UInt8[np.ndarray, 3]) -> str:
  from matplotlib import colors

  red, green, blue = (colour / 255).tolist()
  return colors.to_hex((red, green, blue))


def overlaid(
  image: UInt8[np.ndarray, "h w 3"],
  masks: Sequence[Bool[np.ndarray, "h w"]],
  painted: Sequence[UInt8[np.ndarray, 3]],
) -> UInt8[np.ndarray, "h w 3"]:
  """The image with a colour on each mask, the first one on top."""
  found = image.copy()
  for mask, colour in zip(reversed(masks), reversed(painted), strict=False):
    mixed = _SHARE * colour + (1 - _SHARE) * image[mask]
    found[mask] = np.rint(mixed).astype(np.uint8)
  return found


def _words(marked: Marked, row: int, names: tuple[str, ...]) -> str:
  label = int(marked.classes[row])
  name = sheet_lib.class_name(label, names) if label >= 0 else "ignored"
  if marked.scores is None:
    return name
  return f"{name} {marked.scores[row]:.2f}"


def _height(image: UInt8[np.ndarray, "h w 3"], side: float) -> float:
  height, width = image.shape[:2]
  return side * min(height / width, 1.0)
