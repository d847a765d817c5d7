"""Boxes of objects in the records of a TFDS data set, such as COCO and VOC."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image, UnidentifiedImageError

from kd_jax.data.formats import array_cache
from kd_jax.data.formats.objects.annotations import box_problem, clipped
from kd_jax.data.formats.tfds_prepared import Prepared
from kd_jax.data.formats.tfds_records import Records
from kd_jax.types import Marks

Size = tuple[int, int]
"""Height and width, pixels."""

_NONE = 1, 1  # size of what is no image; decoding says what is wrong


def box_key(prepared: Prepared, wanted: str = "") -> str:
  """The feature that holds the objects of an image.

  Args:
    prepared: the data set.
    wanted: its key; '' is the only sequence of boxes ('bbox') with a class
      ('label').

  Raises:
    ValueError: no such feature, none, or several.
  """
  found = [key for key in sorted(prepared.features) if _is_boxes(prepared, key)]
  choice = [wanted] if wanted else found
  if len(choice) == 1 and choice[0] in found:
    return choice[0]
  raise ValueError(
    f"box_key={wanted!r}: {prepared.name} has the features "
    f"{sorted(prepared.features)}, of which {found} are boxes with classes; "
    "set box_key to the one to take, or boxes=False"
  )


def box_names(prepared: Prepared, key: str) -> tuple[str, ...]:
  """Names of the classes of objects."""
  return tuple(_parts(prepared, key)["label"].names)


def objects(
  prepared: Prepared, key: str, features: Mapping[str, Any], size: Size
) -> Marks:
  """What `DataSource.objects` says of a record.

  TFDS keeps boxes as shares of the image. Those of VOC, which are told by
  'is_difficult', count pixels from 1 and include the last one, see `voc_xml`.

  Args:
    prepared: the data set.
    key: of the objects.
    features: of the record.
    size: height and width of its image.

  Raises:
    ValueError: a box is not inside the image.
  """
  parts = _parts(prepared, key)
  shares = np.array(features[f"{key}/bbox"].float_list.value, np.float64)
  y0, x0, y1, x1 = shares.reshape(-1, 4).T
  height, width = size
  boxes = np.stack([x0 * width, y0 * height, x1 * width, y1 * height], -1)
  if "is_difficult" in parts:
    boxes[:, :2] -= 1
  for box in boxes.tolist():
    problem = box_problem(box, size)
    if problem:
      raise ValueError(problem)
  boxes = np.array([clipped(box, size) for box in boxes]).reshape(-1, 4)

  def column(name: str) -> np.ndarray:
    if name not in parts:
      return np.zeros(len(boxes), np.int64)
    return np.array(features[f"{key}/{name}"].int64_list.value, np.int64)

  sides = boxes[:, 2:] - boxes[:, :2]
  area = column("area") if "area" in parts else sides.prod(1)
  found: Marks = {
    "size": size,
    "boxes": boxes.astype(np.float32),
    "classes": column("label").astype(np.int32),
    "ignored": column("is_crowd").astype(bool),
    "area": area.astype(np.float32),
  }
  if "is_difficult" in parts:
    found["difficult"] = column("is_difficult").astype(bool)
  return found


def size_of(data: bytes) -> Size:
  """Height and width of an encoded image, by its header."""
  try:
    with Image.open(io.BytesIO(data)) as image:
      return image.height, image.width
  except (UnidentifiedImageError, OSError):
    return _NONE


def sizes(prepared: Prepared, split: str, key: str) -> Int64[np.ndarray, "n 2"]:
  """Height and width of every image of a split, read once and kept."""
  shards = prepared.splits[split]
  files = shards.identity(times=True)
  identity = f"sizes\0{prepared.name}\0{split}\0{key}\0{files}"

  def build() -> np.ndarray:
    records = Records(prepared, [split])
    found = [
      size_of(records[row][key].bytes_list.value[0])
      for row in range(len(shards))
    ]
    return np.array(found, np.int64)

  return array_cache.table("sizes", identity, build)


def _parts(prepared: Prepared, key: str) -> Mapping[str, Any]:
  """Features of one object by their names."""
  return prepared.features[key].feature


def _is_boxes(prepared: Prepared, key: str) -> bool:
  import tensorflow_datasets as tfds  # slow to import

  feature = prepared.features[key]
  kinds = {"bbox": tfds.features.BBoxFeature, "label": tfds.features.ClassLabel}
  if not isinstance(feature, tfds.features.Sequence):
    return False
  inner = feature.feature
  return isinstance(inner, tfds.features.FeaturesDict) and all(
    name in inner and isinstance(inner[name], kind)
    for name, kind in kinds.items()
  )
