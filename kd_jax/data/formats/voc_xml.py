"""One image's objects in the XML of PASCAL VOC."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool, Float32, Int32

NAMES = (
  "aeroplane",
  "bicycle",
  "bird",
  "boat",
  "bottle",
  "bus",
  "car",
  "cat",
  "chair",
  "cow",
  "diningtable",
  "dog",
  "horse",
  "motorbike",
  "person",
  "pottedplant",
  "sheep",
  "sofa",
  "train",
  "tvmonitor",
)
"""The classes of VOC."""

_SPARE = 1.0  # pixels that rounding may put a box outside its image
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("height", "width")
_FIRST = np.array([1, 1, 0, 0], np.float32)  # the number of the first pixel


class Found(NamedTuple):
  """What a file says.

  Attributes:
    size: height and width of the image, pixels.
    boxes: (x0, y0, x1, y1): VOC counts pixels from 1 and gives the last one
      inside, so 1 is taken from x0 and y0, as Detectron2 does.
    classes: places in the names.
    difficult: objects that are learnt but not counted.
  """

  size: tuple[int, int]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  difficult: Bool[np.ndarray, " k"]


def read(path: str, names: tuple[str, ...] = NAMES) -> Found:
  """Reads a file; parts of objects, such as heads, are passed over.

  Raises:
    ValueError: it is missing, damaged or of another kind, names an unknown
      class, or has an impossible box.
  """
  root = _parsed(path)
  size = tuple(_whole(path, root, f"size/{side}") for side in _SIDES)
  height, width = size
  objects = root.findall("object")
  boxes, classes = [], []
  for number, each in enumerate(objects):
    name = (each.findtext("name") or "").strip()
    if name not in names:
      raise ValueError(
        f"{path}: object {number} is {name!r}, and the classes are "
        f"{', '.join(names)}; set --config.data.classes to those of the files"
      )
    box = _box(each)
    text = _wrong(box, height, width)
    if text:
      raise ValueError(f"{path}: object {number}, {name!r}: {text}")
    boxes.append(box)
    classes.append(names.index(name))
  found = np.array(boxes, np.float32).reshape(-1, 4) - _FIRST
  difficult = [_is_set(each, "difficult") for each in objects]
  return Found(
    (height, width),
    found,
    np.array(classes, np.int32),
    np.array(difficult, bool),
  )


def _parsed(path: str) -> ElementTree.Element:
  try:
    root = ElementTree.parse(path).getroot()
  except OSError as error:
    raise ValueError(
      f"{path}: cannot be read, {error.strerror}; every image needs its file "
      "of annotations"
    ) from error
  except (ElementTree.ParseError, ValueError) as error:
    raise ValueError(
      f"{path}: cut short, or no XML ({error}); fetch or write it again"
    ) from error
  if root.tag != "annotation":
    raise ValueError(
      f"{path}: it holds <{root.tag}>, and VOC's files <annotation>"
    )
  return root


def _whole(path: str, root: ElementTree.Element, tag: str) -> int:
  text = (root.findtext(tag) or "").strip()
  if not text.isdecimal() or not int(text):
    raise ValueError(
      f"{path}: its <{tag}> is {text!r}; it must be a whole number above 0, "
      "that of the image"
    )
  return int(text)


def _box(each: ElementTree.Element) -> list[float]:
  """As the file has it; NaN where it has none."""
  found = []
  for corner in _CORNERS:
    try:
      found.append(float(each.findtext(f"bndbox/{corner}") or "nan"))
    except ValueError:
      found.append(math.nan)
  return found


def _wrong(box: list[float], height: int, width: int) -> str:
  """What is wrong with a box, or ''."""
  shown = f"its box ({', '.join(f'{side:g}' for side in box)})"
  left, top, right, bottom = box
  if not all(map(math.isfinite, box)):
    return f"{shown} must be 4 numbers, {', '.join(_CORNERS)}"
  if right <= left - 1 or bottom <= top - 1:
    return f"{shown} must have xmax and ymax from xmin and ymin on"
  low = 1 - _SPARE
  if min(left, top) < low or right > width + _SPARE or bottom > height + _SPARE:
    return f"{shown} reaches outside its image of {height}x{width} (h x w)"
  return ""


def _is_set(each: ElementTree.Element, tag: str) -> bool:
  return (each.findtext(tag) or "0").strip() not in ("", "0")
