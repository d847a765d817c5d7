"""Which columns of a table hold the images and the labels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_USUAL = ("image", "img", "jpg", "png")


@dataclasses.dataclass(frozen=True)
class Layout:
  """Columns, and what labels are called.

  Attributes:
    image: column of the images.
    label: column of the labels; '' if there is none.
    classes: names of the labels; () where the files do not say.
  """

  image: str
  label: str
  classes: tuple[str, ...]

  @property
  def columns(self) -> list[str]:
    """All columns that are read."""
    return [self.image, self.label] if self.label else [self.image]


def of(schema: pa.Schema, image: str, label: str, where: str) -> Layout:
  """The layout of a table.

  Args:
    schema: of the file, with what `datasets` stores in its metadata.
    image: column of the images; '' is the only one that is declared as such,
      or one with a usual name.
    label: column of the labels; '' is the only one that is declared as such,
      or the one that is called so and holds whole numbers; else none.
    where: what to call the table in an error message.

  Raises:
    ValueError: no such column, several to choose from, or one of a type that
      holds no images or labels.
  """
  features = _features(schema)
  image = image or _image(schema, features, where)
  _check(schema, image, "image_column", where)
  if not is_image(schema.field(image).type):
    raise ValueError(
      f"{where}: column {image!r} is {schema.field(image).type}, not an "
      "encoded image; set --config.data.image_column, or cast_column(..., "
      "Image())"
    )
  label = label or _label(schema, features, where)
  if not label:
    return Layout(image, "", ())
  _check(schema, label, "label_column", where)
  if not pa.types.is_integer(schema.field(label).type):
    raise ValueError(
      f"{where}: column {label!r} is {schema.field(label).type}, and labels "
      "are whole numbers; set --config.data.label_column, or "
      "class_encode_column(...) and save it again"
    )
  declared = features.get(label, {})
  return Layout(image, label, tuple(declared.get("names") or ()))


def is_image(kind: pa.DataType) -> bool:
  """Whether a column may hold encoded images or their paths."""
  if pa.types.is_struct(kind):
    place = kind.get_field_index("bytes")
    if place >= 0 and pa.types.is_null(kind.field(place).type):
      return kind.get_field_index("path") >= 0
    return place >= 0 and _is_binary(kind.field(place).type)
  return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
  return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
  stored = (schema.metadata or {}).get(b"huggingface", b"{}")
  found = json.loads(stored).get("info", {}).get("features", {})
  return {
    name: feature
    for name, feature in found.items()
    if isinstance(feature, dict)
  }


def _image(
  schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], where: str
) -> str:
  found = _declared(features, "Image")
  if not found:
    found = [
      name
      for name in _USUAL
      if name in schema.names and is_image(schema.field(name).type)
    ]
  return _only(found, "image_column", schema, where)


def _label(
  schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], where: str
) -> str:
  found = _declared(features, "ClassLabel")
  if found:
    return _only(found, "label_column", schema, where)
  has = "label" in schema.names
  return (
    "label" if has and pa.types.is_integer(schema.field("label").type) else ""
  )


def _declared(
  features: Mapping[str, Mapping[str, Any]], kind: str
) -> list[str]:
  return [name for name in features if features[name].get("_type") == kind]


def _only(
  found: Sequence[str], field: str, schema: pa.Schema, where: str
) -> str:
  if len(found) != 1:
    several = f"has {list(found)} to choose from" if found else "declares none"
    raise ValueError(
      f"{where}: {several}; set --config.data.{field} to one of the columns "
      f"{schema.names}"
    )
  return found[0]


def _check(schema: pa.Schema, name: str, field: str, where: str) -> None:
  if name not in schema.names:
    raise ValueError(
      f"{where}: there is no column {name!r}; set --config.data.{field} to one "
      f"of {schema.names}"
    )
