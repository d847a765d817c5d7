"""One image's objects in the XML of PASCAL VOC."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree import ElementTree

from kd_jax.data.formats.annotations import Size, box_problem, clipped
from kd_jax.resolve import near

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

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Thing(NamedTuple):
  """An object.

  Attributes:
    box: (x0, y0, x1, y1) in pixels, inside the image. VOC counts pixels from 1
      and gives the last one inside, so 1 is taken from x0 and y0, as Detectron2
      does.
    kind: place of its class in the names.
    difficult: whether it is learnt but not counted.
  """

  box: list[float]
  kind: int
  difficult: bool


class Found(NamedTuple):
  """What a file says.

  Attributes:
    size: height and width of the image, pixels.
    things: its objects.
    problems: (name, what is wrong) of others.
  """

  size: Size
  things: tuple[Thing, ...]
  problems: tuple[tuple[str, str], ...]


def read(path: str, names: tuple[str, ...] = NAMES) -> Found:
  """Reads a file; parts of objects, such as heads, are passed over.

  Raises:
    ValueError: it is missing, damaged or of another kind, or does not say how
      large its image is.
  """
  root = _parsed(path)
  size = _side(path, root, "height"), _side(path, root, "width")
  things, problems = [], []
  for number, each in enumerate(root.findall("object"), 1):
    try:
      things.append(_thing(each, names, size))
    except ValueError as error:
      problems.append((f"object {number} of {path}", str(error)))
  return Found(size, tuple(things), tuple(problems))


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


def _side(path: str, root: ElementTree.Element, name: str) -> int:
  text = (root.findtext(f"size/{name}") or "").strip()
  if not text.isdecimal() or not int(text):
    raise ValueError(
      f"{path}: its size has the {name} {text!r}; it must be a whole number "
      "above 0, that of the image"
    )
  return int(text)


def _thing(
  each: ElementTree.Element, names: tuple[str, ...], size: Size
) -> Thing:
  name = (each.findtext("name") or "").strip()
  if name not in names:
    raise ValueError(
      f"its name is {name!r}, and the classes are {near(name, names)}, unless "
      "--config.data.classes says others"
    )
  corners = [_number(each.findtext(f"bndbox/{side}")) for side in _CORNERS]
  box = [corners[0] - 1, corners[1] - 1, *corners[2:]]
  problem = box_problem(box, size)
  if problem:
    raise ValueError(f"{problem}, after 1 is taken from xmin and ymin")
  hard = (each.findtext("difficult") or "0").strip()
  return Thing(clipped(box, size), names.index(name), hard not in ("", "0"))


def _number(text: str | None) -> float:
  """A side of a box; NaN where it is none."""
  try:
    return float(text or "")
  except ValueError:
    return math.nan
