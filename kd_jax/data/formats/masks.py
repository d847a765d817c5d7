"""Encoded label maps to classes: int16, -1 where a pixel is ignored."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int16, UInt8, UInt16
from PIL import Image

from kd_jax.data.formats.decode import MAX_PIXELS

MAPPINGS: dict[str, tuple[int, ...]] = {
  # The ids of Cityscapes' labelIds.png to its 19 classes of training.
  "cityscapes": (
    *(-1,) * 7, 0, 1, -1, -1, 2, 3, 4, -1, -1, -1, 5, -1, 6, 7, 8, 9, 10, 11,
    12, 13, 14, 15, -1, -1, 16, 17, 18,
  ),
}  # fmt: skip
"""What `mapping` can name, beside 'shift'."""

_MOST = 2**15 - 1  # classes that int16 can tell apart
_UNKNOWN = -2
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# PIL stretches gray values of so many bits to 0..255.
_STRETCH = {2: 85, 4: 17}

Raw = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class LabelMap:
  """Which class a stored value is.

  Attributes:
    names: of the classes, in order.
    ignore: stored value of pixels without a class; -1 where there is none.
    mapping: () where a stored value is the class. Else the class of every
      stored value from 0 on, -1 for none.

  Raises:
    ValueError: no or too many classes, or values that contradict each other.
  """

  names: tuple[str, ...]
  ignore: int = 255
  mapping: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    count = len(self.names)
    if not 1 <= count <= _MOST:
      raise ValueError(
        f"classes names {count}; it must be 1 to {_MOST}: their names, a text "
        "file with a name per line, or their number"
      )
    if not -1 <= self.ignore <= 65535:
      raise ValueError(
        f"ignore={self.ignore}; it must be a value of 8 or 16 bits, or -1 for "
        "none"
      )
    wrong = [x for x in self.mapping if not -1 <= x < count]
    if wrong:
      raise ValueError(
        f"mapping leads to {wrong[0]}; classes are 0..{count - 1}, and -1 is "
        "for ignored pixels"
      )
    own = self.mapping or range(count)
    if 0 <= self.ignore < len(own) and own[self.ignore] >= 0:
      raise ValueError(
        f"ignore={self.ignore} is class {own[self.ignore]} too; set ignore to "
        "the value of pixels without a class, or to -1 if there is none"
      )

  @functools.cached_property
  def _table(self) -> Int16[np.ndarray, " values"]:
    """The class of every 16-bit value; -2 where it has none."""
    table = np.full(65536, _UNKNOWN, np.int16)
    own = self.mapping or range(len(self.names))
    table[: len(own)] = own
    if self.ignore >= 0:
      table[self.ignore] = -1
    return table

  def __call__(self, raw: Raw, name: str) -> Int16[np.ndarray, "h w"]:
    """Classes of stored values.

    Args:
      raw: the values.
      name: what to call them in an error message, a path for instance.

    Raises:
      ValueError: a value that is no class and not ignored.
    """
    classes = self._table[raw]
    if (classes == _UNKNOWN).any():
      value = int(raw[classes == _UNKNOWN][0])
      raise ValueError(f"{name} holds {value}; {self._allowed()}")
    return classes

  def _allowed(self) -> str:
    ignored = f"ignore {self.ignore}" if self.ignore >= 0 else "none is ignored"
    if self.mapping:
      return (
        f"mapping has values 0..{len(self.mapping) - 1}, {ignored}. Make it "
        "longer, or repair the file"
      )
    return (
      f"classes are 0..{len(self.names) - 1}, {ignored}. Repair the file, or "
      "set classes, ignore or mapping"
    )


def label_map(
  classes: int | str | Sequence[str],
  ignore: int,
  mapping: str | Sequence[int],
  place: str = "",
) -> LabelMap:
  """The `LabelMap` that fields of a source describe.

  Args:
    classes: names, or a text file with a name per line, or their number.
    ignore: see `LabelMap`.
    mapping: see `LabelMap`; or 'cityscapes', from its 34 ids to 19 classes;
      or 'shift', for classes stored from 1 on with 0 for ignored pixels, as
      ADE20K has them.
    place: directory that the text file is relative to.

  Raises:
    ValueError: no such file or mapping, or what `LabelMap` refuses.
  """
  names = class_names(classes, place)
  if mapping == "shift":
    mapping = range(-1, len(names))
  elif isinstance(mapping, str):
    if mapping not in MAPPINGS and mapping:
      raise ValueError(
        f"mapping={mapping!r}; it must be the classes of the values 0, 1, 2, "
        f"..., or one of {sorted([*MAPPINGS, 'shift'])}"
      )
    mapping = MAPPINGS.get(mapping, ())
  return LabelMap(names, ignore, tuple(mapping))


def class_names(
  classes: int | str | Sequence[str], place: str = ""
) -> tuple[str, ...]:
  """Names of classes as a field of a source gives them.

  Args:
    classes: names, or a text file with a name per line, or their number.
    place: directory that the text file is relative to.

  Raises:
    ValueError: the file cannot be read.
  """
  if isinstance(classes, int):
    return tuple(map(str, range(classes)))
  if not isinstance(classes, str):
    return tuple(classes)
  path = os.path.join(place, os.path.expanduser(classes))
  try:
    with open(path, encoding="utf-8") as file:
      return tuple(line.strip() for line in file if line.strip())
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f"classes={classes!r}: cannot be read ({error}); it must be a text "
      "file with the name of a class per line"
    ) from error


def decode(data: bytes, name: str) -> Raw:
  """The stored values of a label map; indices where it has a palette.

  Args:
    data: an encoded image that keeps every value: PNG, GIF, BMP or TIFF.
    name: what to call it in an error message, a path for instance.

  Raises:
    ValueError: it cannot be read, or has colours instead of labels.
  """
  if data.startswith(_JPEG):
    raise ValueError(
      f"{name}: JPEG changes labels; write masks as PNG with a value per pixel"
    )
  depth, colour = (data[24], data[25]) if _is_png(data) else (0, -1)
  raw = None
  if colour == 0 and depth >= 8:  # faster, and other threads may run
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if raw is not None and raw.ndim == 2:
    return raw
  raw = _by_pil(data, name)
  return raw // _STRETCH[depth] if colour == 0 and depth in _STRETCH else raw


def _is_png(data: bytes) -> bool:
  # A header that lies about its size is left to PIL, which refuses it.
  size = [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)]
  return (
    data.startswith(_PNG) and len(data) > 26 and size[0] * size[1] < MAX_PIXELS
  )


def _by_pil(data: bytes, name: str) -> Raw:
  try:
    with Image.open(io.BytesIO(data)) as image:
      mode = image.mode
      raw = np.asarray(image)
  except Exception as error:  # PIL's plugins raise whatever they run into.
    raise ValueError(
      f"{name}: unreadable ({len(data)} bytes; corrupt, truncated or not an "
      "image). Remove or replace it."
    ) from error
  if mode in ("1", "L", "P"):
    return raw.astype(np.uint8)
  if mode.startswith("I;16"):
    return raw.astype(np.uint16)
  raise ValueError(
    f"{name}: its pixels are {mode}, not labels; a mask has one value per "
    "pixel, the number of its class: gray of 8 or 16 bits, or a palette"
  )
