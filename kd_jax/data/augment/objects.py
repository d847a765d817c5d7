"""Boxes and masks that follow their image onto its canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from kd_jax.types import Record, is_marked

Size = tuple[int, int]
"""Height and width, pixels."""


class Things(NamedTuple):
  """The objects of an image that are to be learnt, in its own pixels.

  Attributes:
    boxes: (x0, y0, x1, y1).
    classes: from 0 on.
    masks: of the size of the image; None without.
  """

  boxes: Float64[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  masks: Sequence[Bool[np.ndarray, "h w"]] | None


class Placed(NamedTuple):
  """Where an image lies: resized, then cropped, mirrored, and put on a canvas.

  Attributes:
    size: height and width as it was read.
    resized: the same after scaling.
    corner: top and left of the crop in the resized image.
    canvas: height and width of the canvas, in whose corner it lies.
    flip: whether it is mirrored.
  """

  size: Size
  resized: Size
  corner: Size
  canvas: Size
  flip: bool = False

  @classmethod
  def whole(
    cls, size: Size, resized: Size, canvas: Size, flip: bool = False
  ) -> Placed:
    """Without a crop."""
    return cls(size, resized, (0, 0), canvas, flip)

  @property
  def shown(self) -> Size:
    """Height and width of what is seen of it."""
    sides = zip(self.resized, self.corner, self.canvas, strict=True)
    height, width = (min(new - cut, room) for new, cut, room in sides)
    return height, width

  @property
  def scale(self) -> Float64[np.ndarray, " 2"]:
    """Pixels of the canvas per pixel of the image, (x, y)."""
    (height, width), (rows, columns) = self.resized, self.size
    return np.array([width / columns, height / rows])

  def moved(
    self, boxes: Float64[np.ndarray, "k 4"]
  ) -> Float64[np.ndarray, "k 4"]:
    """Boxes of the image on the canvas, cut to what is seen."""
    corner = np.array(self.corner[::-1], np.float64)
    found = boxes * np.tile(self.scale, 2) - np.tile(corner, 2)
    height, width = self.shown
    if self.flip:
      found[:, [0, 2]] = width - found[:, [2, 0]]
    limit = np.array([width, height, width, height], np.float64)
    return np.clip(found, 0, limit)


def things(record: Record) -> Things:
  """The objects of a record that are not ignored.

  Raises:
    ValueError: the record has none to offer.
  """
  if not is_marked(record):
    raise ValueError(
      f"record {record['id']} has no boxes; detection needs a source with "
      "boxes, such as --config.data.name=coco"
    )
  boxes = np.asarray(record["boxes"], np.float64).reshape(-1, 4)
  ignored = np.asarray(record.get("ignored", np.zeros(len(boxes))), bool)
  kept = np.flatnonzero(~ignored)
  masks = record.get("masks")
  return Things(
    boxes[kept],
    np.asarray(record["classes"], np.int32)[kept],
    None if masks is None else [masks[i] for i in kept],
  )


def labels(
  found: Things,
  placed: Placed,
  *,
  count: int,
  too_many: str,
  grid: int,
  least: float,
  name: str,
) -> dict[str, np.ndarray]:
  """The fields of `types.Objects`, of one image.

  Args:
    found: the objects.
    placed: where their image lies.
    count: room for them.
    too_many: 'error', or 'drop' for the smallest.
    grid: side of masks; 0 has none.
    least: side that must be visible, pixels of the canvas.
    name: of the record, for messages.

  Raises:
    ValueError: there are too many, or masks are asked for and not there.
  """
  if grid and found.masks is None:
    raise ValueError(
      f"record {name} has no masks; name data with masks in --config.data, or "
      "set --config.detector.masks=False and --config.preprocess.masks=False"
    )
  boxes = placed.moved(found.boxes)
  sides = boxes[:, 2:] - boxes[:, :2]
  seen = np.flatnonzero((sides > 0).all(1) & (sides >= least).all(1))
  if len(seen) > count:
    if too_many == "error":
      raise ValueError(
        f"record {name} has {len(seen)} objects and there is room for {count}; "
        f"set --config.preprocess.max_objects={len(seen)}, or "
        "--config.preprocess.too_many=drop to keep the largest"
      )
    largest = np.argsort(-sides[seen].prod(1), kind="stable")[:count]
    seen = np.sort(seen[largest])
  masks = [
    _grid(found.masks[i], boxes[i], placed, grid)
    for i in seen.tolist()
    if grid and found.masks is not None
  ]
  return _padded(boxes[seen], found.classes[seen], masks, placed, count, grid)


def _padded(
  boxes: Float64[np.ndarray, "k 4"],
  classes: Int32[np.ndarray, " k"],
  masks: Sequence[UInt8[np.ndarray, "m m"]],
  placed: Placed,
  count: int,
  grid: int,
) -> dict[str, np.ndarray]:
  known = len(classes)
  found = {
    "boxes": np.zeros((count, 4), np.float32),
    "classes": np.full(count, -1, np.int32),
    "masks": np.zeros((count, grid, grid), np.uint8),
    "size": np.array(placed.shown, np.int32),
  }
  found["boxes"][:known] = boxes
  found["classes"][:known] = classes
  if grid and known:
    found["masks"][:known] = masks
  return {**found, "frames": found["boxes"].copy()}


def _grid(
  mask: Bool[np.ndarray, "h w"],
  box: Float64[np.ndarray, " 4"],
  placed: Placed,
  side: int,
) -> UInt8[np.ndarray, "side side"]:
  """What a mask has within a box of the canvas, at `side` x `side` places."""
  scale, corner = placed.scale, placed.corner[::-1]
  low, high = box[:2].copy(), box[2:].copy()
  if placed.flip:
    width = placed.shown[1]
    low[0], high[0] = width - high[0], width - low[0]
  low, high = ((edge + corner) / scale for edge in (low, high))
  step = (high - low) / side
  # Only what the box needs of a large image is looked at.
  first = np.maximum(np.floor(low).astype(int) - 1, 0)
  last = np.ceil(high).astype(int) + 1
  mask = mask[first[1] : last[1], first[0] : last[0]]
  # Pixel centres are at whole numbers for OpenCV.
  start = low - first + step / 2 - 0.5
  back = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
  grid: Float32[np.ndarray, "side side"] = cv2.warpAffine(
    np.asarray(mask, np.float32),
    back,
    (side, side),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )
  inside = (grid >= 0.5).astype(np.uint8)
  return inside[:, ::-1] if placed.flip else inside
