"""Segmentations of COCO's JSON: packed when read, masks when asked for."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pycocotools import mask as coco_mask

Size = tuple[int, int]
"""Height and width, pixels."""

Packed = tuple[bytes, bool]
"""A segmentation, and whether it is of polygons."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shapes:
  """Segmentations one after another, so that processes share their pages.

  Attributes:
    data: run lengths in COCO's compressed text, or of polygons as float64 how
      many there are, the length of each, and their numbers x, y, x, y, ...
    ends: where each ends in `data`.
    polygons: which of the two it is.
  """

  data: UInt8[np.ndarray, " bytes"]
  ends: Int64[np.ndarray, " k"]
  polygons: Bool[np.ndarray, " k"]

  @classmethod
  def of(cls, packed: Sequence[Packed]) -> Shapes:
    """Of what `pack` made."""
    lengths = np.array([len(data) for data, _ in packed], np.int64)
    data = np.frombuffer(b"".join(data for data, _ in packed), np.uint8)
    kinds = np.array([kind for _, kind in packed], bool)
    return cls(data, np.cumsum(lengths), kinds)

  def mask(self, row: int, size: Size) -> Bool[np.ndarray, "h w"]:
    """What one covers, as pycocotools draws it.

    Raises:
      ValueError: damaged run lengths.
    """
    start = self.ends[row - 1] if row else 0
    data = self.data[start : self.ends[row]].tobytes()
    if not self.polygons[row]:
      return _drawn({"size": list(size), "counts": data})
    numbers = np.frombuffer(data, np.float64)
    count = int(numbers[0])
    bounds = np.cumsum(numbers[1 : 1 + count].astype(int))[:-1]
    parts = np.split(numbers[1 + count :], bounds)
    runs = coco_mask.frPyObjects([part.tolist() for part in parts], *size)
    return _drawn(coco_mask.merge(runs))


@dataclasses.dataclass(frozen=True, eq=False)
class Masks(Sequence[Bool[np.ndarray, "h w"]]):
  """The masks of one image, each decoded when it is asked for.

  Attributes:
    shapes: where they are.
    rows: which of them.
    size: of the image.
    name: of the image, for messages.
  """

  shapes: Shapes
  rows: range
  size: Size
  name: str

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> Bool[np.ndarray, "h w"]:  # type: ignore[override]
    try:
      return self.shapes.mask(self.rows[index], self.size)
    except ValueError as error:
      raise ValueError(
        f"{self.name}: the run lengths of its object {index} are damaged "
        f"({error}); correct or remove them in the file of annotations"
      ) from error

  def __iter__(self) -> Iterator[Bool[np.ndarray, "h w"]]:
    return (self[index] for index in range(len(self)))


def pack(segmentation: object, size: Size) -> Packed:
  """A segmentation of the JSON, for `Shapes`.

  Args:
    segmentation: polygons [[x, y, x, y, ...], ...], or {'size', 'counts'} with
      run lengths as a list or as COCO's compressed text.
    size: of its image.

  Raises:
    ValueError: what is wrong with it.
  """
  if isinstance(segmentation, dict):
    return _packed_runs(segmentation, size), False
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError("it has no segmentation, and masks=True needs one")
  return _packed_polygons(segmentation), True


def _packed_polygons(polygons: Sequence[object]) -> bytes:
  numbers: list[float] = [len(polygons)]
  for part in polygons:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
      raise ValueError(
        f"a polygon of its segmentation is {str(part)[:60]}; it must be "
        "[x, y, x, y, x, y, ...] with three points or more"
      )
    numbers.append(len(part))
  try:
    for part in polygons:
      numbers.extend(part)  # type: ignore[arg-type]
    found = np.array(numbers, np.float64)
  except (TypeError, ValueError):
    found = np.array([math.nan])
  if not np.isfinite(found).all():
    raise ValueError("a polygon of its segmentation has what is no number")
  return found.tobytes()


def _packed_runs(runs: dict[str, Any], size: Size) -> bytes:
  known, counts = runs.get("size"), runs.get("counts")
  if known != list(size):
    raise ValueError(
      f"its segmentation has the size {known}, and its image {list(size)} "
      "(height, width)"
    )
  if isinstance(counts, str) and counts.isascii():
    return counts.encode()
  whole = isinstance(counts, list) and all(
    type(count) is int and count >= 0 for count in counts
  )
  if not whole or sum(counts) != math.prod(size):
    raise ValueError(
      "the run lengths (counts) of its segmentation must be whole numbers "
      f"whose sum is {math.prod(size)}, the pixels of its image"
    )
  found = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
  return found["counts"]


def _drawn(runs: dict[str, Any]) -> Bool[np.ndarray, "h w"]:
  decode: Callable[[dict[str, Any]], np.ndarray] = coco_mask.decode
  with warnings.catch_warnings():
    # Its arrays are older than NumPy 2 likes them.
    warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
    return decode(runs).astype(bool)
