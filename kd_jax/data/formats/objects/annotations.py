"""Boxes, classes and masks of all images of a data set, in few arrays.

Files of annotations are text, of which a million boxes would stay a gigabyte of
Python objects. Here they become columns, and masks runs of pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from kd_jax.data.formats.objects import runs
from kd_jax.types import Marks

Size = tuple[int, int]
"""Height and width, pixels."""

_BEYOND = 1.0  # pixels that rounding may bring a box over the edge
_SHOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """The objects of n images, one image after the other.

  Attributes:
    files: names of the images' files.
    ids: what annotations call the images.
    sizes: height and width of every image.
    ends: where the objects of every image end.
    boxes: (x0, y0, x1, y1) in pixels, inside the image.
    classes: from 0 on.
    ignored: crowds, which are neither learnt nor counted.
    difficult: objects that are learnt but not counted.
    area: in pixels.
    text: the masks' compressed runs, one after the other.
    text_ends: where each of them ends; () without masks.
  """

  files: tuple[str, ...]
  ids: tuple[int | str, ...]
  sizes: Int64[np.ndarray, "n 2"]
  ends: Int64[np.ndarray, " n"]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  ignored: Bool[np.ndarray, " k"]
  difficult: Bool[np.ndarray, " k"]
  area: Float32[np.ndarray, " k"]
  text: UInt8[np.ndarray, " bytes"]
  text_ends: Int64[np.ndarray, " masks"]

  def __len__(self) -> int:
    return len(self.files)

  def objects(self, row: int) -> Marks:
    """What `DataSource.objects` says of an image, with 'difficult'."""
    own = self._own(row)
    height, width = map(int, self.sizes[row])
    found: Marks = {
      "size": (height, width),
      "boxes": self.boxes[own],
      "classes": self.classes[own],
      "ignored": self.ignored[own],
      "difficult": self.difficult[own],
      "area": self.area[own],
    }
    if len(self.text_ends):
      masks = [self._mask(place, (height, width)) for place in _places(own)]
      found["masks"] = np.array(masks, bool).reshape(-1, height, width)
    return found

  @functools.cached_property
  def learnt(self) -> Int64[np.ndarray, " n"]:
    """Number of objects of every image that are learnt."""
    passed = np.cumsum(~self.ignored)
    passed = np.concatenate([[0], passed])[np.concatenate([[0], self.ends])]
    return np.diff(passed)

  def _own(self, row: int) -> slice:
    start = self.ends[row - 1] if row else 0
    return slice(int(start), int(self.ends[row]))

  def _mask(self, place: int, size: Size) -> Bool[np.ndarray, "h w"]:
    start = self.text_ends[place - 1] if place else 0
    text = self.text[start : self.text_ends[place]].tobytes()
    return runs.decode(text, size)


class Collected:
  """Objects as they are found, and what is wrong with some of them.

  Args:
    masks: whether they have masks.
  """

  def __init__(self, *, masks: bool) -> None:
    self._masks, self._problems = masks, []
    self._images: list[tuple[str, int | str, Size]] = []
    self._columns: dict[str, list[Any]] = {
      name: []
      for name in ("row", "boxes", "classes", "ignored", "difficult", "area")
    }
    self._texts: list[bytes] = []

  def image(self, file: str, known: int | str, size: Size) -> int:
    """Adds an image; returns its row."""
    self._images.append((file, known, size))
    return len(self._images) - 1

  def size(self, row: int) -> Size:
    """Of an image."""
    return self._images[row][2]

  def problem(self, name: str, text: str) -> None:
    """Remembers why an object is left out."""
    self._problems.append(f"{name}: {text}")

  def add(self, row: int, text: bytes = b"", **fields: Any) -> None:
    """Adds an object of the image `row`: 'boxes', 'classes' and so on."""
    for name, value in {"row": row, **fields}.items():
      self._columns[name].append(value)
    self._texts.append(text)

  def raise_or_count(self, path: str, *, skip: bool) -> None:
    """Says what is wrong.

    Raises:
      ValueError: something is, and it may not be skipped.
    """
    found, total = self._problems, len(self._texts) + len(self._problems)
    if not found:
      return
    if not skip:
      raise ValueError(
        f"{path}: {found[0]} ({len(found)} of {total} objects are wrong). "
        "Correct the file, or set --config.data.skip_invalid=True to leave "
        "them out"
      )
    some = "; ".join(found[:_SHOWN])
    logging.warning(
      "%s: %d of %d objects are left out: %s%s",
      *(path, len(found), total, some, "; ..." * (len(found) > _SHOWN)),
    )

  def table(self) -> Table:
    """All of it, in the order of the images."""
    rows = np.array(self._columns["row"], np.int64)
    order = np.argsort(rows, kind="stable")
    files, ids, sizes = zip(*self._images, strict=True)
    kinds = {"classes": np.int32, "ignored": bool, "difficult": bool}
    columns = {
      name: np.array(self._columns[name], kinds.get(name, np.float32))[order]
      for name in ("boxes", "classes", "ignored", "difficult", "area")
    }
    columns["boxes"] = columns["boxes"].reshape(-1, 4)
    texts = [self._texts[place] for place in order] if self._masks else []
    return Table(
      files=files,
      ids=ids,
      sizes=np.array(sizes, np.int64),
      ends=np.cumsum(np.bincount(rows, minlength=len(files))),
      text=np.frombuffer(b"".join(texts), np.uint8),
      text_ends=np.cumsum([len(text) for text in texts], dtype=np.int64),
      **columns,
    )


def box_problem(box: Sequence[float], size: Size) -> str:
  """What is wrong with a box (x0, y0, x1, y1), or ''."""
  x0, y0, x1, y1 = box
  shown = f"[{', '.join(f'{side:g}' for side in box)}]"
  if not all(map(math.isfinite, box)):
    return f"its box {shown} has values that are no numbers"
  if x1 < x0 or y1 < y0:
    return f"its box {shown} (x0, y0, x1, y1) is reversed"
  if x1 == x0 or y1 == y0:
    return f"its box {shown} (x0, y0, x1, y1) has no area"
  height, width = size
  beyond = max(-x0, -y0, x1 - width, y1 - height)
  left, top, right, bottom = clipped(box, size)
  if beyond > _BEYOND or right <= left or bottom <= top:
    return (
      f"its box {shown} (x0, y0, x1, y1) is not inside the image, which has "
      f"{height}x{width} pixels (height x width)"
    )
  return ""


def clipped(box: Sequence[float], size: Size) -> list[float]:
  """A box without what rounding brings over the edge of the image."""
  height, width = size
  limits = (width, height, width, height)
  return [
    min(max(side, 0.0), limit) for side, limit in zip(box, limits, strict=True)
  ]


def _places(own: slice) -> range:
  return range(own.start, own.stop)
