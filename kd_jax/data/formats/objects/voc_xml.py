"""Annotations of Pascal VOC: a file of XML for every image."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from kd_jax.data.formats.objects.annotations import (
  Collected,
  Size,
  box_problem,
  clipped,
)
from kd_jax.resolve import near

NAMES = (
  "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
  "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
  "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of VOC 2007 to 2012, in their usual order."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(
  path: str, known: str, numbers: Mapping[str, int], found: Collected
) -> None:
  """Adds an image and its objects.

  VOC counts pixels from 1, and its boxes include their last pixel: as in
  Detectron2, 1 is taken off their first row and column.

  Args:
    path: of the XML file.
    known: what to call the image.
    numbers: number of every class.
    found: what they are added to.

  Raises:
    ValueError: the file cannot be read, is no XML, or does not say how large
      its image is.
  """
  try:
    root = ET.parse(path).getroot()
  except OSError as error:
    raise ValueError(
      f"{path}: cannot be read: {error.strerror}; every image of the split "
      "needs its annotation"
    ) from error
  except ET.ParseError as error:
    raise ValueError(
      f"{path}: is cut short or no XML ({error}); copy it again"
    ) from error
  size = _size(root, path)
  row = found.image(f"{known}.jpg", known, size)
  for place, entry in enumerate(root.findall("object"), start=1):
    try:
      _add(found, row, entry, numbers, size)
    except ValueError as error:
      found.problem(f"object {place} of {os.path.basename(path)}", str(error))


def _size(root: ET.Element, path: str) -> Size:
  sides = [root.findtext(f"size/{name}", "") for name in ("height", "width")]
  if not all(side.strip().isdecimal() and int(side) for side in sides):
    raise ValueError(
      f"{path}: its 'size' needs a 'height' and 'width' of at least 1; it says "
      f"{sides[0]!r} and {sides[1]!r}"
    )
  return int(sides[0]), int(sides[1])


def _add(
  found: Collected,
  row: int,
  entry: ET.Element,
  numbers: Mapping[str, int],
  size: Size,
) -> None:
  name = entry.findtext("name", "").strip()
  if name not in numbers:
    raise ValueError(
      f"its name {name!r} is no class; there are {near(name, numbers)}"
    )
  texts = [entry.findtext(f"bndbox/{corner}", "") for corner in _CORNERS]
  box = [_number(text) for text in texts]
  box = [box[0] - 1, box[1] - 1, box[2], box[3]]
  problem = box_problem(box, size)
  if problem:
    raise ValueError(problem)
  box = clipped(box, size)
  found.add(
    row,
    boxes=box,
    classes=numbers[name],
    ignored=False,
    difficult=entry.findtext("difficult", "0").strip() == "1",
    area=(box[2] - box[0]) * (box[3] - box[1]),
  )


def _number(text: str) -> float:
  """A side of a box; NaN where it is none."""
  try:
    return float(text)
  except ValueError:
    return math.nan
