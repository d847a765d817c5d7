"""COCO, and any folder of images with annotations in COCO's format."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import folder_listing
from kd_jax.data.formats.objects import coco_json
from kd_jax.data.formats.objects.annotations import Table
from kd_jax.data.sources import splits
from kd_jax.types import MarkedRecord, Marks, Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Images with boxes and masks, in the order of the JSON file.

  Classes are the categories by their ids. Crowds are 'ignored'. The file is
  read once; see `formats.objects.annotations` for what is kept of it. EXIF tags
  do not turn images, which annotations would not follow.

  Attributes:
    images: folder of the images.
    annotations: JSON file, such as instances_train2017.json.
    split: 'all', or a part of the images: 'all[:500]'.
    masks: whether objects have masks too.
    keep_empty: whether images come too that have no object, or only crowds.
      Evaluation needs them; training can learn nothing of objects from them.
    skip_invalid: objects that are wrong are left out, counted and named,
      instead of an error.
    classes: names of the categories to keep; () is all.
    skip_corrupt: an image that cannot be decoded is replaced by another one,
      instead of an error.

  Raises:
    ValueError: see `formats.objects.coco_json.read`; an image is missing, or no
      image has an object.
  """

  images: str
  annotations: str
  split: str = "all"
  masks: bool = True
  keep_empty: bool = False
  skip_invalid: bool = False
  classes: tuple[str, ...] = ()
  skip_corrupt: bool = False
  num_classes = 0

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "classes", tuple(self.classes))
    _ = self._files

  @property
  def _place(self) -> str:
    return os.path.expanduser(self.images)

  @functools.cached_property
  def _read(self) -> tuple[Table, tuple[coco_json.Category, ...]]:
    return coco_json.read(
      os.path.expanduser(self.annotations),
      masks=self.masks,
      skip_invalid=self.skip_invalid,
      classes=self.classes,
    )

  @property
  def _table(self) -> Table:
    return self._read[0]

  @functools.cached_property
  def _rows(self) -> Int64[np.ndarray, " n"]:
    """Rows of the table that are kept."""
    rows = np.arange(len(self._table))
    if not self.keep_empty:
      rows = rows[self._table.learnt > 0]
    if not len(rows):
      raise ValueError(
        f"annotations={self.annotations!r}: no image has an object to learn; "
        "set --config.data.keep_empty=True to take them all the same"
      )
    _, start, stop = splits.parse(self.split, {"all": len(rows)})
    return rows[start:stop]

  @functools.cached_property
  def _index(self) -> folder_listing.Index:
    if not os.path.isdir(self._place):
      raise ValueError(
        f"images={self.images!r} is not a directory; set --config.data.images "
        f"to that of {self.annotations!r}"
      )
    return folder_listing.find(self._place)

  @functools.cached_property
  def _files(self) -> Int64[np.ndarray, " n"]:
    """Where every image is in the listing of the folder."""
    rows = self._rows  # what is wrong with the file shows first
    items = self._index.items(range(len(self._index)))
    places = {os.fsdecode(path): place for place, (path, _) in enumerate(items)}
    names = [os.path.normpath(self._table.files[row]) for row in rows]
    missing = [name for name in names if name not in places]
    if missing:
      raise ValueError(
        f"images={self.images!r} lacks {len(missing)} of the {len(names)} "
        f"images that {self.annotations!r} lists, such as {missing[0]!r}; set "
        "--config.data.images to where they are"
      )
    return np.array([places[name] for name in names], np.int64)

  @interfaces.computed
  def box_names(self) -> Sequence[str]:
    """Names of the categories, by their ids."""
    return tuple(kind.name for kind in self._read[1])

  @interfaces.computed
  def category_ids(self) -> tuple[int, ...]:
    """Their ids, as files of results use them."""
    return tuple(kind.known for kind in self._read[1])

  @interfaces.computed
  def image_ids(self) -> list[int | str]:
    """Ids of the images, as files of results use them."""
    return [self._table.ids[row] for row in self._rows]

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the images' paths and sizes, in order."""
    return self._index.digest(self._files)

  def objects(self, index: int) -> Marks:
    """See the base; crowds are 'ignored'."""
    found = self._table.objects(int(self._rows[index]))
    del found["difficult"]
    return found

  @functools.cached_property
  def _sizes(self) -> Int64[np.ndarray, "n 2"]:
    return self._table.sizes[self._rows]

  def sizes(self) -> Int64[np.ndarray, "n 2"]:
    """Height and width of every image, as the file says."""
    return self._sizes

  def object_counts(self) -> Int64[np.ndarray, " n"]:
    """Objects of every image that are not 'ignored'."""
    return self._table.learnt[self._rows]

  def ids(self) -> Iterator[str]:
    """Paths of all images in order, relative to their folder."""
    return (self._table.files[row] for row in self._rows)

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    return os.path.join(self._place, self._index.path(self._files[index]))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> MarkedRecord:
    image = self._index.read(self._place, self._files[index])
    known: Record = {"image": image, "label": -1, "id": index % len(self)}
    return {**known, **self.objects(index)}
