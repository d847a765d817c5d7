"""Overlaps of boxes on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def iou(
  a: Float[np.ndarray, "k 4"], b: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "k m"]:
  """Intersection over union of boxes (x0, y0, x1, y1), in float64.

  0 where neither of two has an extent.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  low = np.maximum(a[:, None, :2], b[None, :, :2])
  high = np.minimum(a[:, None, 2:], b[None, :, 2:])
  both = np.maximum(high - low, 0).prod(-1)
  either = _area(a)[:, None] + _area(b)[None] - both
  return both / np.where(either > 0, either, 1)


def _area(boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, " k"]:
  return (boxes[:, 2:] - boxes[:, :2]).prod(-1)
