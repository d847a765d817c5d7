"""Masks as runs of pixels, in COCO's compressed text, and what they come from.

COCO stores an object as polygons, as a list of runs (column by column, outside
and inside in turn) or as such runs packed into text.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

Size = tuple[int, int]
"""Height and width, pixels."""

_LEAST = 6  # numbers of a polygon: three points


def decode(text: bytes, size: Size) -> Bool[np.ndarray, "h w"]:
  """The mask of compressed runs that `encode` returned."""
  with warnings.catch_warnings():
    # pycocotools' arrays are older than NumPy 2 likes them.
    warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
    return coco_mask.decode({"size": list(size), "counts": text}).astype(bool)


def encode(segmentation: Any, size: Size) -> bytes:
  """Compressed runs of what COCO's field 'segmentation' holds.

  Args:
    segmentation: polygons, or {'size', 'counts'} with runs as a list or text.
    size: height and width of the image.

  Raises:
    ValueError: it is neither, or does not fit the image; the text goes on
      after 'its mask'.
  """
  if isinstance(segmentation, Mapping):
    return _runs(segmentation, size)
  if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
    raise ValueError("is neither a list of polygons nor runs of pixels")
  if not segmentation:
    raise ValueError("has no polygon")
  for polygon in segmentation:
    _check_polygon(polygon, size)
  height, width = size
  parts = coco_mask.frPyObjects(list(segmentation), height, width)
  return as_bytes(coco_mask.merge(parts)["counts"])


def as_bytes(counts: str | bytes) -> bytes:
  """Compressed runs as pycocotools returns them."""
  return counts.encode() if isinstance(counts, str) else counts


def _check_polygon(polygon: Any, size: Size) -> None:
  if not isinstance(polygon, Sequence) or isinstance(polygon, str):
    raise ValueError("has a polygon that is no list of numbers")
  if len(polygon) < _LEAST or len(polygon) % 2:
    points = f"{len(polygon) / 2:g}"
    raise ValueError(f"has a polygon of {points} points; three are the least")
  if not all(map(_is_number, polygon)):
    raise ValueError("has a polygon with values that are no numbers")
  low, high = min(polygon), max(polygon)
  if low < -max(size) or high > 2 * max(size):
    raise ValueError("has a polygon far outside the image")


def _runs(segmentation: Mapping[str, Any], size: Size) -> bytes:
  height, width = size
  if list(segmentation.get("size", ())) != [height, width]:
    raise ValueError(
      f"is of {segmentation.get('size')} pixels, the image of "
      f"{[height, width]} (height, width)"
    )
  counts = segmentation.get("counts")
  found = _unpacked(counts.encode()) if isinstance(counts, str) else counts
  if not _are_runs(found) or sum(found) != height * width:
    raise ValueError(
      f"has runs that are not the {height * width} pixels of the image"
    )
  if isinstance(counts, str):
    return counts.encode()
  plain: Any = {"size": [height, width], "counts": found}
  return as_bytes(coco_mask.frPyObjects(plain, height, width)["counts"])


def _are_runs(found: object) -> TypeGuard[list[int]]:
  if not isinstance(found, list):
    return False
  return all(type(run) is int for run in found) and min(found, default=0) >= 0


def _unpacked(text: bytes) -> list[int] | None:
  """The runs of compressed text; None if it ends early.

  pycocotools believes any text, and fills the mask with what was in memory
  where it is too short. A run is written in groups of 5 bits, the low ones
  first, from the third on as the difference to the one before the last.
  """
  found: list[int] = []
  value, shift = 0, 0
  for byte in text:
    bits = byte - 48
    value |= (bits & 31) << shift
    shift += 5
    if bits & 32:
      continue
    if bits & 16:
      value -= 1 << shift
    found.append(value + (found[-2] if len(found) > 2 else 0))
    value, shift = 0, 0
  return None if shift else found


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and math.isfinite(value)
