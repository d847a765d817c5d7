"""Batches for the evaluation of segmentation: whole images and windows of them.

The KDEP authors' semseg fork (tool/test.py) looks at an image at some scales,
at each through windows of the training size that overlap by a third, and
averages. This makes the images and says where the windows are.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Int16, UInt8

from kd_jax.data import examples
from kd_jax.data.dense import Dense, mask_of, pair
from kd_jax.data.reading import USUAL
from kd_jax.data.streams import Report, Stream, check_share, padded, share
from kd_jax.interfaces import DataSource
from kd_jax.types import Record

Size = tuple[int, int]
"""Height and width, pixels."""


@struct.dataclass
class View:
  """The images of a batch at one scale; k is the most windows that fit.

  Attributes:
    image: (n, H, W, 3) uint8, each resized, at the top left of a canvas of the
      fill colour, which is at least as large as a window.
    start: (n, k, 2) int32, top and left of the windows; they cover the image.
    weight: (n, k) float32, 1 or, where there is no such window, 0.
    size: (n, 2) int32, height and width of the resized image.
  """

  image: UInt8[Array, "n H W 3"]
  start: Int[Array, "n k 2"]
  weight: Float[Array, "n k"]
  size: Int[Array, "n 2"]


@struct.dataclass
class DenseBatch:
  """One batch of a pass over images with masks.

  Attributes:
    views: one per scale.
    label: (n, LH, LW) int16, each mask in its own size, at the top left; -1
      where it is ignored, and beyond it.
    size: (n, 2) int32, height and width of the mask.
    mask: (n,) float32; 0 marks padding of the last batch, whose sizes are 1.
  """

  views: tuple[View, ...]
  label: Int16[Array, "n LH LW"]
  size: Int[Array, "n 2"]
  mask: Float[Array, " n"]


def window_batches(
  source: DataSource,
  dense: Dense,
  *,
  batch_size: int,
  limit: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  on_skip: Report | None = None,
) -> Stream[DenseBatch]:
  """One pass in order; the last batch is filled up with rows of mask 0.

  Args:
    source: of records with masks.
    dense: its `long_side`, `scales`, `image_size` (of the windows), `fill`,
      `eval_size` and `label_size` are used. Shapes follow from them alone.
    batch_size: global; every process yields its share of the rows, and all
      processes yield the same number of batches.
    limit: use at most this many of the first records.
    process_index: this process.
    process_count: number of processes.
    on_skip: is told of every record that was skipped; its row has mask 0.

  Raises:
    ValueError: the source has no masks, or a count is out of range; while
      iterating, where a record cannot be decoded or does not fit.
  """
  if not source.mask_names:
    raise ValueError(
      f"{type(source).__module__} has no masks, which segmentation is judged "
      "by; set --config.data to a source that has, such as pairs"
    )
  check_share(batch_size, process_index, process_count)
  count, rows = padded(len(source), limit, batch_size)
  dataset = rows.map(_Fetch(examples.Decoded(source), dense, count))
  dataset = share(dataset, batch_size, process_index, process_count)
  dataset = dataset.batch(batch_size // process_count)
  return Stream(USUAL.of(dataset), _batch, on_skip)


@dataclasses.dataclass(frozen=True)
class _Fetch:
  """The row of a record; index `count` and above is padding."""

  source: examples.Decoded
  dense: Dense
  count: int

  def __call__(self, index: int) -> Mapping[str, Any]:
    record = self.source.readable(index) if index < self.count else None
    if record is None:
      skipped = index if index < self.count else -1
      return {**_nothing(self.dense), "skipped": np.int64(skipped)}
    try:
      row = _row(self.dense, record)
    except ValueError as error:
      name = self.source.source.describe(index)
      raise ValueError(f"{name}: {error}") from error
    return {**row, "skipped": np.int64(-1)}


def _batch(fields: dict[str, Any]) -> DenseBatch:
  views = tuple(View(**view) for view in fields.pop("views"))
  return DenseBatch(views=views, **fields)


def _row(dense: Dense, record: Record) -> dict[str, Any]:
  image, mask = pair(record)
  views = tuple(_view(dense, image, scale) for scale in dense.scales)
  row = _nothing(dense)
  _put(row["label"], mask, "mask", "label_size")
  size = np.array(mask.shape, np.int32)
  return {**row, "views": views, "size": size, "mask": np.float32(1)}


def _nothing(dense: Dense) -> dict[str, Any]:
  """The row of no record."""
  return {
    "views": tuple(_blank(dense, scale) for scale in dense.scales),
    "label": np.full(label_size(dense), -1, np.int16),
    "size": np.ones(2, np.int32),
    "mask": np.float32(0),
  }


def _view(dense: Dense, image: np.ndarray, scale: float) -> dict[str, Any]:
  height, width = resized(image.shape[:2], dense.long_side, scale)
  # OpenCV copies where the size is right.
  image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
  view = _blank(dense, scale)
  _put(view["image"], image, "image, resized,", "eval_size")
  found = starts((height, width), dense.image_size)
  view["start"][: len(found)] = found
  view["weight"][: len(found)] = 1
  return {**view, "size": np.array((height, width), np.int32)}


def _blank(dense: Dense, scale: float) -> dict[str, Any]:
  """A canvas without an image."""
  space = canvas(dense, scale)
  most = len(starts(space, dense.image_size))
  return {
    "image": np.full((*space, 3), dense.fill, np.uint8),
    "start": np.zeros((most, 2), np.int32),
    "weight": np.zeros(most, np.float32),
    "size": np.ones(2, np.int32),
  }


def _put(space: np.ndarray, array: np.ndarray, what: str, field: str) -> None:
  """Writes `array` to the top left of `space`."""
  height, width = array.shape[:2]
  _check_fits((height, width), (space.shape[0], space.shape[1]), what, field)
  space[:height, :width] = array


def _check_fits(size: Size, space: Size, what: str, field: str) -> None:
  if size[0] > space[0] or size[1] > space[1]:
    raise ValueError(
      f"its {what} has {size[0]}x{size[1]} pixels (height x width), and there "
      f"is room for {space[0]}x{space[1]}; set "
      f"--config.preprocess.{field}=({size[0]}, {size[1]}) or more"
    )


def check_room(
  source: DataSource, dense: Dense, limit: int | None = None
) -> None:
  """Whether every image of a source has its place, by reading all masks.

  It takes seconds; an evaluation would find out after hours of training. Of a
  source that makes its images, all of one size, only the first is looked at.

  Args:
    source: of records with masks.
    dense: as of `window_batches`.
    limit: look at this many of the first records; None looks at all.

  Raises:
    ValueError: an image or a mask is too large, or a mask cannot be read and
      the source does not skip such records.
  """
  for index in range(min(len(source), limit or len(source))):
    try:
      record = source[index]
    except ValueError:
      if source.skip_corrupt:
        continue
      raise
    try:
      # Images have the size of their masks.
      _check_size(mask_of(record).shape, dense)
    except ValueError as error:
      raise ValueError(f"{source.describe(index)}: {error}") from error
    if not isinstance(record["image"], bytes):
      return


def _check_size(size: Size, dense: Dense) -> None:
  for scale in dense.scales:
    found, space = resized(size, dense.long_side, scale), canvas(dense, scale)
    _check_fits(found, space, "image, resized,", "eval_size")
  _check_fits(size, label_size(dense), "mask", "label_size")


def resized(size: Size, long_side: int, scale: float) -> Size:
  """Height and width of an image for evaluation, rounded as the authors do.

  Args:
    size: height and width of the image.
    long_side: its longer side becomes round(scale * long_side); 0 stands for
      what it is already.
    scale: factor.
  """
  longer = max(size)
  long = round(scale * (long_side or longer))
  sides = [
    long if side == longer else round(long / longer * side) for side in size
  ]
  return max(sides[0], 1), max(sides[1], 1)


def canvas(dense: Dense, scale: float) -> Size:
  """Height and width of the images of a scale, at least those of a window."""
  found = _eval_size(dense)
  if scale != 1:
    # As far as rounding, at both scales, can bring an image that fits at 1.
    found = [math.ceil(scale * (side + 0.5)) + 1 for side in found]
    most = round(scale * dense.long_side) or max(found)
    found = [min(side, most) for side in found]
  height, width = (max(side, dense.image_size) for side in found)
  return height, width


def label_size(dense: Dense) -> Size:
  """Height and width of the canvas of masks."""
  height, width = dense.label_size or _eval_size(dense)
  return height, width


def _eval_size(dense: Dense) -> Size:
  side = dense.long_side or dense.image_size
  height, width = dense.eval_size or (side, side)
  return height, width


@functools.lru_cache(maxsize=1024)
def starts(size: Size, window: int) -> tuple[Size, ...]:
  """Top and left of the windows over an image, row by row.

  They lie a stride of 2/3 of a window apart, rounded up; the last ones of a
  row and of a column move back so that they end with the image.

  Args:
    size: height and width of the image; a side shorter than a window has one.
    window: side of the windows.
  """
  stride = math.ceil(window * 2 / 3)
  rows, columns = (
    [min(place * stride, room) for place in range(math.ceil(room / stride) + 1)]
    for room in (max(side - window, 0) for side in size)
  )
  return tuple(itertools.product(rows, columns))
