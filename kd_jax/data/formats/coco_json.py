"""COCO's JSON of instances, read once into compact arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from kd_jax.data.formats import coco_masks

Entries = Sequence[Mapping[str, Any]]
Id = int | str
Size = coco_masks.Size

_SPARE = 1.0  # pixels that rounding may put a box outside its image
_OTHER = -2  # class of categories that are not asked for
_NAMED = 5  # invalid annotations that are named


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """The n images, sorted by id, and their k objects, image by image.

  Attributes:
    names: of the classes.
    category_ids: what the file calls the classes.
    image_ids: what it calls the images.
    files: names of the images' files.
    sizes: height and width of the images, pixels.
    starts: the first object of every image, and their number.
    boxes: (x0, y0, x1, y1), pixels.
    classes: from 0 on.
    crowds: whether it is a group of objects.
    area: as the file says, pixels; of the box where it says nothing.
    shapes: the segmentations; None where they are not asked for.
    left_out: how many annotations are left out as invalid.
    examples: the first of them, and why.
  """

  names: tuple[str, ...]
  category_ids: tuple[Id, ...]
  image_ids: tuple[Id, ...]
  files: tuple[str, ...]
  sizes: Int64[np.ndarray, "n 2"]
  starts: Int64[np.ndarray, " n+1"]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  crowds: Bool[np.ndarray, " k"]
  area: Float32[np.ndarray, " k"]
  shapes: coco_masks.Shapes | None
  left_out: int = 0
  examples: tuple[str, ...] = ()

  def of(self, image: int) -> range:
    """Which objects an image has."""
    return range(int(self.starts[image]), int(self.starts[image + 1]))

  def learnt(self) -> Int64[np.ndarray, " n"]:
    """The number of objects of every image that are no crowds."""
    image = np.repeat(np.arange(len(self.files)), np.diff(self.starts))
    return np.bincount(image[~self.crowds], minlength=len(self.files))


def read(
  path: str,
  *,
  masks: bool = False,
  skip_invalid: bool = False,
  classes: Sequence[str] = (),
) -> Table:
  """Reads and checks a file.

  Args:
    path: of the file.
    masks: whether segmentations are read.
    skip_invalid: leave invalid annotations out, instead of an error.
    classes: names of the categories that are read, numbered so; () reads all,
      sorted by their ids.

  Raises:
    ValueError: the file is missing, cut short or of another kind; two images
      or categories have the same id; an image has no name or size; a name of
      `classes` is unknown; or, unless it is skipped, an annotation names an
      unknown image or category, or has an impossible box or segmentation.
  """
  data = _load(path)
  kinds = _categories(path, data["categories"], classes)
  image_ids, files, sizes = _images(path, data["images"])
  places = {name: place for place, name in enumerate(image_ids)}
  found = _Annotations(data["annotations"], sizes, places, kinds)
  packed = found.packed() if masks else None
  if found.wrong and not skip_invalid:
    place, text = min(found.wrong.items())
    raise ValueError(
      f"annotations={path!r}: {found.name(place)}: {text} ({len(found.wrong)} "
      f"of {len(found.raw)} annotations are invalid); correct it, or leave "
      "them out with --config.data.skip_invalid=True"
    )
  kept = [name for name in kinds if kinds[name] != _OTHER]
  kept.sort(key=kinds.__getitem__)
  names = {each["id"]: str(each["name"]) for each in data["categories"]}
  return Table(
    names=tuple(names[name] for name in kept),
    category_ids=tuple(kept),
    image_ids=image_ids,
    files=files,
    sizes=sizes,
    **found.columns(packed),
    left_out=len(found.wrong),
    examples=tuple(
      f"{found.name(place)}: {text}"
      for place, text in sorted(found.wrong.items())[:_NAMED]
    ),
  )


class _Annotations:
  """The annotations as columns, and which are wrong.

  Args:
    raw: of the JSON.
    sizes: height and width of the images.
    places: image id -> its place.
    kinds: category id -> its class, or `_OTHER`.
  """

  def __init__(
    self,
    raw: Entries,
    sizes: Int64[np.ndarray, "n 2"],
    places: Mapping[Id, int],
    kinds: Mapping[Id, int],
  ) -> None:
    self.raw, self._sizes = raw, sizes
    self._image = _looked_up(raw, "image_id", places)
    self._kind = _looked_up(raw, "category_id", kinds)
    self._box = np.array([_box(each) for each in raw], np.float64)
    self._box = self._box.reshape(-1, 4)
    self.wrong: dict[int, str] = {}
    with np.errstate(invalid="ignore"):  # numbers that are none
      for bad, text in self._checks():
        for place in np.flatnonzero(bad).tolist():
          self.wrong.setdefault(place, text(place))

  def _checks(
    self,
  ) -> list[tuple[Bool[np.ndarray, " k"], Callable[[int], str]]]:
    """(what is wrong, how to say it), the most basic first."""
    low, sides = self._box[:, :2], self._box[:, 2:]
    limit = self._sizes[self._image][:, ::-1] + _SPARE
    outside = (low < -_SPARE).any(1) | (low + sides > limit).any(1)

    def told(field: str) -> Callable[[int], str]:
      of = "images" if field == "image_id" else "categories"
      return lambda i: (
        f"its {field} {self.raw[i].get(field)!r} is not among the {of}"
      )

    def box(text: str) -> Callable[[int], str]:
      return lambda i: f"its bbox {str(self.raw[i].get('bbox'))[:60]} {text}"

    def beyond(place: int) -> str:
      height, width = self._sizes[self._image[place]].tolist()
      return box(
        f"reaches outside its image of {height}x{width} (height x width)"
      )(place)

    return [
      (self._image == -1, told("image_id")),
      (self._kind == -1, told("category_id")),
      (
        ~np.isfinite(self._box).all(1),
        box("must be 4 finite numbers, [x, y, width, height]"),
      ),
      ((sides <= 0).any(1), box("must have a width and a height above 0")),
      (outside, beyond),
    ]

  @property
  def _kept(self) -> Int64[np.ndarray, " k"]:
    """Places of the objects, image by image."""
    kept = self._kind >= 0
    kept[list(self.wrong)] = False
    rows = np.flatnonzero(kept)
    return rows[np.argsort(self._image[rows], kind="stable")]

  def packed(self) -> dict[int, coco_masks.Packed]:
    """Segmentations of all objects; finds more that are wrong."""
    found = {}
    for place in self._kept.tolist():
      height, width = self._sizes[self._image[place]].tolist()
      shape = self.raw[place].get("segmentation")
      try:
        found[place] = coco_masks.pack(shape, (height, width))
      except ValueError as error:
        self.wrong[place] = str(error)
    return found

  def columns(
    self, packed: Mapping[int, coco_masks.Packed] | None
  ) -> dict[str, Any]:
    """Those of `Table`, of what is not wrong."""
    rows = self._kept
    box = self._box[rows]
    area = np.array([_number(self.raw[i].get("area")) for i in rows], float)
    area = np.where(np.isfinite(area), area, box[:, 2:].prod(1))
    crowds = [bool(self.raw[i].get("iscrowd", 0)) for i in rows]
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1)
    starts = np.searchsorted(self._image[rows], np.arange(len(self._sizes) + 1))
    return {
      "starts": starts.astype(np.int64),
      "boxes": corners.astype(np.float32),
      "classes": self._kind[rows].astype(np.int32),
      "crowds": np.array(crowds, bool),
      "area": area.astype(np.float32),
      "shapes": None
      if packed is None
      else coco_masks.Shapes.of([packed[i] for i in rows.tolist()]),
    }

  def name(self, place: int) -> str:
    """What to call an annotation."""
    each = self.raw[place]
    return f"annotation {each.get('id')} of image {each.get('image_id')}"


def _load(path: str) -> dict[str, Any]:
  try:
    with open(path, encoding="utf-8") as file:
      data = json.load(file)
  except OSError as error:
    raise ValueError(
      f"annotations={path!r}: cannot be read, {error.strerror}; set "
      "--config.data.annotations to a file of instances in COCO's JSON"
    ) from error
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(
      f"annotations={path!r}: cut short, or no JSON ({error}); fetch or write "
      "the file again"
    ) from error
  for key in ("images", "annotations", "categories"):
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(
      isinstance(each, dict) for each in entries
    ):
      raise ValueError(
        f"annotations={path!r}: it has no list {key!r}; COCO's JSON of "
        "instances is {'images': [...], 'annotations': [...], 'categories': "
        "[...]}"
      )
  return data


def _categories(
  path: str, entries: Entries, asked: Sequence[str]
) -> dict[Id, int]:
  """{category id: its class, or `_OTHER`}."""
  ids = _ids(path, "categories", entries)
  names = {each["id"]: str(each.get("name")) for each in entries}
  if None in [each.get("name") for each in entries] or not entries:
    raise ValueError(
      f"annotations={path!r}: 'categories' must be one or more, each with a "
      "name"
    )
  if not asked:
    return {name: place for place, name in enumerate(ids)}
  known = {text: name for name, text in names.items()}
  unknown = [text for text in asked if text not in known]
  if unknown or len(set(asked)) < len(asked):
    raise ValueError(
      f"classes={tuple(asked)!r}: "
      + (f"{unknown[0]!r} is no category" if unknown else "one comes twice")
      + f" of {path!r}, which has {', '.join(sorted(known))}"
    )
  order = {known[text]: place for place, text in enumerate(asked)}
  return {name: order.get(name, _OTHER) for name in ids}


def _images(
  path: str, entries: Entries
) -> tuple[tuple[Id, ...], tuple[str, ...], Int64[np.ndarray, "n 2"]]:
  """Ids, files and sizes, sorted by the ids."""
  if not entries:
    raise ValueError(f"annotations={path!r}: it names no image")
  ids = _ids(path, "images", entries)
  of = {each["id"]: each for each in entries}
  for name in ids:
    file, *size = (of[name].get(k) for k in ("file_name", "height", "width"))
    whole = all(type(side) is int and side > 0 for side in size)
    if not isinstance(file, str) or not whole:
      raise ValueError(
        f"annotations={path!r}: image {name} has file_name={file!r}, "
        f"height={size[0]!r}, width={size[1]!r}; they must be a name and whole "
        "numbers above 0"
      )
  sizes = [(of[name]["height"], of[name]["width"]) for name in ids]
  return (
    ids,
    tuple(of[name]["file_name"] for name in ids),
    np.array(sizes, np.int64).reshape(-1, 2),
  )


def _ids(path: str, key: str, entries: Entries) -> tuple[Id, ...]:
  """Those of images or categories, sorted."""
  ids = [each.get("id") for each in entries]
  seen: set[Id] = set()
  for name in ids:
    if not isinstance(name, int | str) or name in seen:
      what = "comes twice" if name in ids[: len(seen)] else "is no id"
      raise ValueError(
        f"annotations={path!r}: the id {name!r} {what} in {key!r}; each must "
        "have its own number"
      )
    seen.add(name)
  # Numbers come before names, which some files have.
  return tuple(sorted(seen, key=lambda n: (isinstance(n, str), n)))


def _looked_up(
  raw: Entries, field: str, table: Mapping[Id, int]
) -> Int64[np.ndarray, " k"]:
  """Place of what every annotation names; -1 where it is unknown."""
  names = (each.get(field) for each in raw)
  places = [
    table.get(name, -1) if isinstance(name, int | str) else -1 for name in names
  ]
  return np.array(places, np.int64)


def _box(each: Mapping[str, Any]) -> Sequence[float]:
  box = each.get("bbox")
  if not isinstance(box, list) or len(box) != 4:
    return (math.nan,) * 4
  return [_number(value) for value in box]


def _number(value: object) -> float:
  return value if type(value) in (int, float) else math.nan  # type: ignore[return-value]
