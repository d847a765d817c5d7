"""What a detector says of one image, in the pixels of that image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """The detections of an image.

  Attributes:
    index: of the record in its source.
    boxes: (x0, y0, x1, y1) in pixels of the image as it was read.
    scores: in [0, 1], usually falling.
    classes: from 0 on.
    masks: probabilities inside each box, stretched over it; None without.
  """

  index: int
  boxes: Float32[np.ndarray, "d 4"]
  scores: Float32[np.ndarray, " d"]
  classes: Int32[np.ndarray, " d"]
  masks: Float[np.ndarray, "d s s"] | None = None


def originals(
  detections: Mapping[str, np.ndarray],
  index: Int[np.ndarray, " n"],
  scale: Float[np.ndarray, "n 2"],
  sizes: Int[np.ndarray, "n 2"],
) -> list[Found]:
  """The detections of a batch, image by image.

  Boxes are clipped to their image; what has no extent after that is dropped.

  Args:
    detections: 'boxes' (n, d, 4) in pixels of the canvas, 'scores' (n, d),
      'classes' (n, d), -1 where there is none, and perhaps 'masks'
      (n, d, s, s), on the host.
    index: of the records; rows of -1 are padding and left out.
    scale: pixels of the canvas per pixel of the image, (x, y).
    sizes: (height, width) of the images, such as `truth.sizes[index]`.
  """
  boxes = np.asarray(detections["boxes"], np.float32)
  boxes = boxes / np.tile(scale, 2)[:, None].astype(np.float32)
  limit = np.tile(np.asarray(sizes)[:, ::-1], 2)[:, None]
  boxes = np.clip(boxes, 0, limit.astype(np.float32))
  kept = (detections["classes"] >= 0) & _extended(boxes)
  return [
    _found(detections, boxes, kept[row], row, int(index[row]))
    for row in np.flatnonzero(np.asarray(index) >= 0).tolist()
  ]


def _extended(boxes: Float32[np.ndarray, "n d 4"]) -> Bool[np.ndarray, "n d"]:
  """Whether boxes have an extent; those of NaN stay, to be complained of."""
  return np.logical_not((boxes[..., 2:] <= boxes[..., :2]).any(-1))


def _found(
  detections: Mapping[str, np.ndarray],
  boxes: Float32[np.ndarray, "n d 4"],
  kept: Bool[np.ndarray, " d"],
  row: int,
  index: int,
) -> Found:
  masks = detections.get("masks")
  return Found(
    index,
    boxes[row, kept],
    np.asarray(detections["scores"][row, kept], np.float32),
    np.asarray(detections["classes"][row, kept], np.int32),
    None if masks is None else masks[row][kept],
  )
