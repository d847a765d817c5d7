"""A folder of images, and their objects in a file in COCO's JSON.

COCO 2017 itself is Source('COCO/train2017',
'COCO/annotations/instances_train2017.json', skip_invalid=True), since two of
its boxes have no height.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator

import numpy as np
from absl import logging
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import coco_json, coco_masks, folder_listing
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Images as encoded bytes, sorted by their ids in the file.

  Records hold what `objects` says too. The folder is listed once, see
  `formats.folder_listing`. Images are read as they are stored: EXIF tags turn
  neither them nor their objects. Crowds ('iscrowd') are ignored.

  Attributes:
    images: folder of the images, to which the file's 'file_name' is relative.
    annotations: the JSON file.
    masks: whether records have masks: polygons, and run lengths of both kinds.
    keep_empty: keep images without an object that is to be learnt; for tests,
      which count what is found on them.
    skip_invalid: leave invalid annotations out and log how many there are,
      instead of an error.
    classes: names of the categories that count, numbered in this order;
      objects of others are left out. () takes all, sorted by their ids.

  Raises:
    ValueError: no such folder or file; the file is damaged, see
      `formats.coco_json.read`; an image is missing; no image is left; for a
      record, an unreadable file or damaged run lengths.
  """

  images: str
  annotations: str
  masks: bool = False
  keep_empty: bool = False
  skip_invalid: bool = False
  classes: tuple[str, ...] = ()
  num_classes = 0

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "classes", tuple(self.classes))
    _ = self._files
    if self.left_out:
      logging.warning(
        "%s: invalid annotations left out: %d, such as %s",
        self.annotations,
        self.left_out,
        "; ".join(self._table.examples),
      )

  @property
  def _folder(self) -> str:
    return os.path.expanduser(self.images)

  @functools.cached_property
  def _listing(self) -> folder_listing.Index:
    if not os.path.isdir(self._folder):
      raise ValueError(
        f"images={self.images!r} is no folder; set --config.data.images to the "
        "one that holds the images"
      )
    return folder_listing.find(self._folder)

  @functools.cached_property
  def _table(self) -> coco_json.Table:
    return coco_json.read(
      os.path.expanduser(self.annotations),
      masks=self.masks,
      skip_invalid=self.skip_invalid,
      classes=self.classes,
    )

  @functools.cached_property
  def _rows(self) -> Int64[np.ndarray, " n"]:
    """Places in the file of the images that are kept."""
    learnt = self._table.learnt()
    rows = np.arange(len(learnt))
    rows = rows if self.keep_empty else rows[learnt > 0]
    if not len(rows):
      raise ValueError(
        f"annotations={self.annotations!r}: none of its {len(learnt)} images "
        "has an object to learn; name another file, or set "
        "--config.data.keep_empty=True"
      )
    return rows

  @functools.cached_property
  def _files(self) -> Int64[np.ndarray, " n"]:
    """Places of the images in the listing of the folder."""
    items = self._listing.items(range(len(self._listing)))
    known = {os.fsdecode(path): row for row, (path, _) in enumerate(items)}
    names = [self._table.files[row] for row in self._rows]
    missing = [name for name in names if name not in known]
    if missing:
      raise ValueError(
        f"images={self.images!r}: {len(missing)} of {len(names)} images of "
        f"{self.annotations!r} are missing, such as {', '.join(missing[:3])}; "
        "add them, or set --config.data.images to their folder"
      )
    return np.array([known[name] for name in names], np.int64)

  @property
  def left_out(self) -> int:
    """How many annotations were left out as invalid."""
    return self._table.left_out

  @property
  def box_names(self) -> tuple[str, ...]:
    """Names of the classes of objects."""
    return self._table.names

  @property
  def category_ids(self) -> tuple[int | str, ...]:
    """What the file calls the classes."""
    return self._table.category_ids

  @functools.cached_property
  def image_ids(self) -> tuple[int | str, ...]:
    """What it calls the images."""
    return tuple(self._table.image_ids[row] for row in self._rows)

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hex digits of the images' paths and sizes, in order."""
    return self._listing.digest(self._files)

  def ids(self) -> Iterator[str]:
    """Paths of all images in order, relative to their folder."""
    return (self._table.files[row] for row in self._rows)

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    return os.path.join(self._folder, self._table.files[self._rows[index]])

  def sizes(self) -> Int64[np.ndarray, "n 2"]:
    """Height and width of every image, as the file says."""
    return self._table.sizes[self._rows]

  def objects(self, index: int) -> Record:
    """See `DataSource`."""
    image = int(self._rows[index])
    height, width = self._table.sizes[image].tolist()
    rows = self._table.of(image)
    part = slice(rows.start, rows.stop)
    found = {
      "size": (height, width),
      "boxes": self._table.boxes[part],
      "classes": self._table.classes[part],
      "ignored": self._table.crowds[part],
      "area": self._table.area[part],
    }
    shapes = self._table.shapes
    if shapes is None:
      return found
    name = self.describe(index)
    masks = coco_masks.Masks(shapes, rows, (height, width), name)
    return {**found, "masks": masks}

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    data = self._listing.read(self._folder, int(self._files[index]))
    return {
      "image": data,
      "label": -1,
      "id": index % len(self),
      **self.objects(index),
    }
