"""The first images of a run, and what the network gets of them.

Every augmentation is the run's own: the same order, the same draws per image
and crop, and the step's part (cutting out of canvases, mixing) by the step's
own function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from kd_jax.data import examples, pipeline
from kd_jax.data.bank import Bank
from kd_jax.data.preprocess import pixels
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.plots import COLORS
from kd_jax.types import Batch

See = Callable[[Batch, Array], Batch]
"""(batch from the host, random key) -> what networks see; `Settings.view`."""

_CROPS = 6  # More crops of an image are left out.
_GAP, _BETWEEN, _EDGE = 8, 24, 2
_LINE, _HEAD = 18, 34


@dataclasses.dataclass(frozen=True)
class Shown:
  """Images with their training views.

  Attributes:
    originals: n decoded images of any size.
    views: what the network gets, values in [0, 1].
    boxes: (top, left, height, width, mirrored) of every view, in pixels of
      its original; None where views are no boxes of the original.
    names: class of every image, '' if unknown.
  """

  originals: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
  views: Float[np.ndarray, "n m s s 3"]
  boxes: Float[np.ndarray, "n m 5"] | None
  names: tuple[str, ...]


def collect(
  source: DataSource,
  preprocess: Views,
  see: See,
  *,
  count: int,
  seed: int,
  images: int = 1,
  bank: Bank | None = None,
) -> Shown:
  """The first images of epoch 0, as training will see them.

  Args:
    source: of the run.
    preprocess: its `train` view.
    see: the step's part; it may mix an image with its neighbour.
    count: of images, at most; an even number is taken, so that all can mix.
    seed: of the run.
    images: records in a batch of the run; the order of sources that are read
      block by block depends on it.
    bank: whose crops are trained on; None if they are drawn anew.

  Raises:
    ValueError: an image cannot be decoded.
  """
  count = max(min(count, len(source)) // 2 * 2, 1)
  decoded = examples.Decoded(source)
  view_seed = seed if bank is None else bank.header.about["seed"]
  fetch = examples.Train(decoded, preprocess, view_seed, bank)
  order = pipeline.shuffled(source, seed, images)
  drawn = [order[place] for place in range(count)]
  rows = [row for row in drawn if row is not None]  # as all are
  visits = [fetch.visit(0, row) for row in rows]
  records = [decoded.next_readable(row)[0] for row in rows]
  views = np.asarray(
    see(_batch(visits, preprocess), jax.random.key(seed)).image
  )
  names = tuple(source.class_names)
  return Shown(
    originals=tuple(map(pixels, records)),
    views=views.reshape(count, -1, *views.shape[1:]),
    boxes=_boxes(visits, records) if preprocess.augment == "crop" else None,
    names=tuple(sheet_lib.class_name(r["label"], names) for r in records),
  )


def draw(shown: Shown) -> bytes:
  """A PNG: every image, its crop boxes on it, and its views beside it."""
  crops = shown.views.shape[1]
  images = len(shown.originals)
  # One crop: pairs side by side. More: a row per image.
  per_row = 1 if crops > 1 else min(images, 3)
  columns = per_row * (1 + min(crops, _CROPS))
  most = 120 if crops > 1 else 150
  room = sheet_lib.WIDTH - 2 * _EDGE - (per_row - 1) * _BETWEEN
  side = min((room + _GAP) // columns - _GAP, most)
  width = columns // per_row * (side + _GAP) + _BETWEEN
  height = side + _LINE + _GAP
  sheet = sheet_lib.Sheet(_HEAD + -(-images // per_row) * height)
  sheet.text(_title(shown), 0, 4, size=13, bold=True)
  for index in range(images):
    row, column = divmod(index, per_row)
    place = (_EDGE + column * width, _HEAD + row * height)
    _image(sheet, shown, index, place, side)
  return sheet.png()


def _title(shown: Shown) -> str:
  crops = shown.views.shape[1]
  what = "what the network gets of it"
  if crops > 1:
    shown_crops = f"{min(crops, _CROPS)} of " if crops > _CROPS else "the "
    what = f"{shown_crops}{crops} crops that the network gets of it"
  return f"Training images of the first epoch: the original, then {what}"


def _image(
  sheet: sheet_lib.Sheet,
  shown: Shown,
  index: int,
  place: tuple[int, int],
  side: int,
) -> None:
  """An original with its boxes, and its views in frames of the same colour."""
  left, top = place
  x, y, scale = sheet.image(shown.originals[index], left, top, side)
  sheet.text(shown.names[index], left + side / 2, top + side + 3, center=True)
  for crop, view in enumerate(shown.views[index][:_CROPS]):
    color = COLORS[crop % len(COLORS)]
    at = left + (crop + 1) * (side + _GAP)
    sheet.image(view, at, top, side)
    if shown.boxes is None:
      continue
    upper, start, height, width, mirrored = shown.boxes[index, crop].tolist()
    corner = (x + scale * start, y + scale * upper)
    sheet.box(*corner, scale * width, scale * height, color)
    sheet.box(at, top, side, side, color)
    if mirrored:
      sheet.text("mirrored", at + side / 2, top + side + 3, center=True)


def _batch(visits: list[Any], preprocess: Views) -> Batch:
  """Visits as the host sends them; see `pipeline.train_batches`."""

  def stacked(name: str) -> np.ndarray:
    return np.stack([visit[name] for visit in visits])

  def flat(name: str) -> np.ndarray:
    x = stacked(name)
    return x.reshape(-1, *x.shape[2:])

  if not preprocess.canvas:
    return Batch(flat("image"), flat("label"), flat("mask"))
  # Whole images, of which the step cuts views.
  return Batch(
    stacked("image"),
    stacked("label"),
    stacked("mask"),
    geometry=stacked("geometry"),
  )


def _boxes(visits: list[Any], records: list[Any]) -> Int[np.ndarray, "n m 5"]:
  """Boxes in pixels of the originals; a canvas may hold them smaller."""
  found = np.stack([v["geometry"] for v in visits]).astype(np.float64)
  sizes = np.array([record["image"].shape[:2] for record in records])
  scale = (sizes[:, None] / found[..., 5:7])[..., [0, 1, 0, 1]]
  return np.concatenate([found[..., :4] * scale, found[..., 4:5]], -1)
