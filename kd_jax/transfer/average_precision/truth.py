"""What there is to find in the images of a source, read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from kd_jax.interfaces import DataSource
from kd_jax.transfer.average_precision import rle
from kd_jax.types import Marks

Ids = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """The k objects of all n images, image by image.

  Attributes:
    names: of the classes.
    sizes: (height, width) of every image, pixels.
    image: whose object it is, an index into `sizes`.
    boxes: (x0, y0, x1, y1), pixels.
    classes: from 0 on.
    ignored: crowds and difficult objects: finding them is neither right nor
      wrong.
    area: pixels; decides what is small, medium and large.
    masks: see `rle.encode`; None where the source has none.
    image_ids: what files call the images; their indices unless the source
      has `image_ids`.
    category_ids: the same of the classes.
  """

  names: tuple[str, ...]
  sizes: Int64[np.ndarray, "n 2"]
  image: Int32[np.ndarray, " k"]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  ignored: Bool[np.ndarray, " k"]
  area: Float32[np.ndarray, " k"]
  masks: tuple[bytes, ...] | None
  image_ids: Ids
  category_ids: Ids

  def of(self, index: int) -> slice:
    """The rows of the objects of an image."""
    first, last = np.searchsorted(self.image, [index, index + 1])
    return slice(int(first), int(last))

  def size(self, index: int) -> rle.Size:
    """Height and width of an image."""
    height, width = self.sizes[index].tolist()
    return height, width

  @property
  def counts(self) -> Int64[np.ndarray, " classes"]:
    """Number of objects of every class that are to be found."""
    wanted = self.classes[~self.ignored]
    return np.bincount(wanted, minlength=len(self.names))


class _Image(NamedTuple):
  size: rle.Size
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  ignored: Bool[np.ndarray, " k"]
  area: Float32[np.ndarray, " k"]
  masks: list[bytes] | None


def collect(source: DataSource, limit: int = 0) -> Truth:
  """Reads the objects of a source; masks are kept as run lengths.

  Args:
    source: has `box_names` and `objects`.
    limit: only so many images, from the first on; 0 takes all.

  Raises:
    ValueError: the source has no objects, or none that is to be found.
  """
  if not source.box_names:
    raise ValueError(
      "average precision needs boxes, and the test data has none (no "
      "box_names); name data with boxes in --config.test"
    )
  count = min(limit, len(source)) if limit else len(source)
  images = [_image(source.objects(index)) for index in range(count)]
  found = _joined(images, source)
  if found.ignored.all():
    raise ValueError(
      f"none of the {count:,} test images has an object to be found, so "
      "nothing can be judged; name other data in --config.test or raise its "
      "limit"
    )
  return found


def _image(marks: Marks) -> _Image:
  height, width = marks["size"]
  ignored = np.asarray(marks["ignored"], bool)
  if "difficult" in marks:  # those of VOC, which may be learnt
    ignored = ignored | np.asarray(marks["difficult"], bool)
  masks = rle.encode_all(marks["masks"]) if "masks" in marks else None
  return _Image(
    (int(height), int(width)),
    np.asarray(marks["boxes"], np.float32).reshape(-1, 4),
    np.asarray(marks["classes"], np.int32),
    ignored,
    np.asarray(marks["area"], np.float32),
    masks,
  )


def _joined(images: Sequence[_Image], source: DataSource) -> Truth:
  lengths = [len(image.classes) for image in images]
  names = tuple(map(str, source.box_names))
  masked = bool(images) and all(image.masks is not None for image in images)
  runs = tuple(run for image in images for run in image.masks or ())
  return Truth(
    names,
    np.array([image.size for image in images], np.int64).reshape(-1, 2),
    np.repeat(np.arange(len(images), dtype=np.int32), lengths),
    _stacked((image.boxes for image in images), (0, 4), np.float32),
    _stacked((image.classes for image in images), (0,), np.int32),
    _stacked((image.ignored for image in images), (0,), bool),
    _stacked((image.area for image in images), (0,), np.float32),
    runs if masked else None,
    _ids(source.image_ids, "image_ids", len(images)),
    _ids(source.category_ids, "category_ids", len(names)),
  )


def _stacked(
  arrays: Iterable[np.ndarray], empty: tuple[int, ...], dtype: type
) -> np.ndarray:
  return np.concatenate([np.zeros(empty, dtype), *arrays])


def _ids(known: Sequence[int | str] | None, field: str, count: int) -> Ids:
  """Of the source's files; numbers where it has none."""
  if known is None:
    return tuple(range(count))
  found = np.asarray(known)[:count].tolist()
  if len(set(found)) != count:
    raise ValueError(
      f"{field} of the test data are {len(set(found))} different ones for "
      f"{count}; give every one its own"
    )
  return tuple(found)
