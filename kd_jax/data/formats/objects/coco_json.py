"""Annotations in COCO's JSON (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kd_jax.data.formats.objects import runs
from kd_jax.data.formats.objects.annotations import (
  Collected,
  Size,
  Table,
  box_problem,
  clipped,
)
from kd_jax.resolve import near

_PARTS = ("images", "annotations", "categories")


class Category(NamedTuple):
  """A class of objects.

  Attributes:
    known: its id in the file.
    name: what to call it.
  """

  known: int
  name: str


def read(
  path: str, *, masks: bool, skip_invalid: bool, classes: Sequence[str] = ()
) -> tuple[Table, tuple[Category, ...]]:
  """Reads a whole file.

  Args:
    path: of the file.
    masks: whether masks are wanted.
    skip_invalid: count and name objects that are wrong instead of an error.
    classes: names of those to keep; () is all.

  Returns:
    The objects of its images, and their classes, by id.

  Raises:
    ValueError: the file cannot be read, is cut short or no such JSON; images
      or categories are wrong or come twice; or an object is wrong.
  """
  parts = _load(path, masks=masks)
  categories = _categories(path, parts["categories"], classes)
  every = {entry.get("id") for entry in parts["categories"]}
  found = Collected(masks=masks)
  rows = _images(path, parts["images"], found)
  numbers = {kind.known: place for place, kind in enumerate(categories)}
  seen: set[Any] = set()
  for annotation in parts["annotations"]:
    known = annotation.get("id")
    problem = _problem(annotation, rows, every, seen)
    if problem:
      found.problem(f"annotation {known}", problem)
      continue
    seen.add(known)
    if annotation["category_id"] in numbers:
      number = numbers[annotation["category_id"]]
      _add(found, annotation, rows[annotation["image_id"]], number, masks)
  found.raise_or_count(path, skip=skip_invalid)
  return found.table(), categories


def _load(path: str, *, masks: bool) -> dict[str, list[dict[str, Any]]]:
  try:
    with open(path, encoding="utf-8") as file:
      # Polygons are most of what a file takes in memory.
      hook = None if masks else _without_mask
      parts = json.load(file, object_hook=hook)
  except OSError as error:
    raise ValueError(
      f"annotations={path!r} cannot be read: {error.strerror}; set "
      "--config.data.annotations to a JSON file in COCO's format"
    ) from error
  except ValueError as error:  # of JSON and of UTF-8
    raise ValueError(
      f"annotations={path!r} is cut short or no JSON ({error}); copy it again"
    ) from error
  for name in _PARTS:
    entries = parts.get(name) if isinstance(parts, dict) else None
    lists = isinstance(entries, list)
    if not lists or not all(isinstance(each, dict) for each in entries):
      raise ValueError(
        f"annotations={path!r} has no list {name!r}; COCO's format has the "
        f"lists {list(_PARTS)}. Files of captions and of results are others"
      )
  return parts


def _without_mask(entry: dict[str, Any]) -> dict[str, Any]:
  entry.pop("segmentation", None)
  return entry


def _categories(
  path: str, entries: Sequence[Mapping[str, Any]], wanted: Sequence[str]
) -> tuple[Category, ...]:
  for entry in entries:
    known, name = entry.get("id"), entry.get("name")
    if type(known) is not int or not isinstance(name, str):
      raise ValueError(
        f"annotations={path!r}: the category {known!r}, {name!r} needs a whole "
        "number as 'id' and a text as 'name'"
      )
  if not entries:
    raise ValueError(f"annotations={path!r} has no category to learn")
  kinds = sorted(Category(entry["id"], entry["name"]) for entry in entries)
  for field, values in (
    ("id", [kind.known for kind in kinds]),
    ("name", [kind.name for kind in kinds]),
  ):
    _check_once(path, "categories", field, values)
  names = [kind.name for kind in kinds]
  for name in wanted:
    if name not in names:
      raise ValueError(
        f"classes names {name!r}, which is no category of {path!r}; it has "
        f"{near(name, names)}"
      )
  return tuple(k for k in kinds if not wanted or k.name in wanted)


def _images(
  path: str, entries: Sequence[Mapping[str, Any]], found: Collected
) -> dict[Any, int]:
  """{id: row} of all images."""
  if not entries:
    raise ValueError(f"annotations={path!r} lists no image")
  for entry in entries:
    if not _is_image(entry):
      raise ValueError(
        f"annotations={path!r}: the image {entry.get('id')!r} needs an 'id', a "
        "'file_name', and a 'height' and 'width' of at least 1"
      )
  for field in ("id", "file_name"):
    _check_once(path, "images", field, [entry[field] for entry in entries])
  return {
    e["id"]: found.image(e["file_name"], e["id"], (e["height"], e["width"]))
    for e in entries
  }


def _is_image(entry: Mapping[str, Any]) -> bool:
  sides = [entry.get("height"), entry.get("width")]
  whole = all(type(side) is int and side >= 1 for side in sides)
  known = isinstance(entry.get("id"), int | str)
  return whole and known and isinstance(entry.get("file_name"), str)


def _check_once(
  path: str, part: str, field: str, values: Sequence[Any]
) -> None:
  value, count = collections.Counter(values).most_common(1)[0]
  if count > 1:
    raise ValueError(
      f"annotations={path!r}: {count} of the {part} have the {field} "
      f"{value!r}; each needs its own"
    )


def _problem(
  annotation: Mapping[str, Any],
  rows: Mapping[Any, int],
  categories: set[Any],
  seen: set[Any],
) -> str:
  """What is wrong with an object, apart from its place; or ''."""
  image, category = annotation.get("image_id"), annotation.get("category_id")
  known = annotation.get("id")
  if not isinstance(known, int | str):
    return "its id is no number"
  if known in seen:
    return "its id comes twice"
  if not isinstance(image, int | str) or image not in rows:
    return f"it is of the image {image!r}, which is not listed"
  if not isinstance(category, int | str) or category not in categories:
    return f"it is of the unknown category {category!r}"
  return ""


def _add(
  found: Collected,
  annotation: Mapping[str, Any],
  row: int,
  number: int,
  masks: bool,
) -> None:
  size = found.size(row)
  name = f"annotation {annotation.get('id')} (image {annotation['image_id']})"
  try:
    box = _box(annotation.get("bbox"), size)
    text = _text(annotation, size) if masks else b""
  except ValueError as error:
    found.problem(name, str(error))
    return
  area = annotation.get("area")
  known = (
    (type(area) is int or type(area) is float)
    and math.isfinite(area)
    and area >= 0
  )
  found.add(
    row,
    text,
    boxes=box,
    classes=number,
    ignored=bool(annotation.get("iscrowd", 0)),
    difficult=False,
    area=area if known else (box[2] - box[0]) * (box[3] - box[1]),
  )


def _box(given: Any, size: Size) -> list[float]:
  """(x0, y0, x1, y1) of COCO's (x0, y0, width, height)."""
  try:
    x, y, width, height = map(float, given)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"its bbox {given!r} is not 4 numbers, (x, y, width, height)"
    ) from error
  box = [x, y, x + width, y + height]
  problem = box_problem(box, size)
  if problem:
    raise ValueError(problem)
  return clipped(box, size)


def _text(annotation: Mapping[str, Any], size: Size) -> bytes:
  try:
    return runs.encode(annotation.get("segmentation"), size)
  except ValueError as error:
    raise ValueError(f"its mask {error}") from error
