"""PASCAL VOC, and any folders of its form: images, XML and lists of images.

DIR/VOC2007/ImageSets/Main/trainval.txt, DIR/VOC2007/Annotations/000005.xml,
DIR/VOC2007/JPEGImages/000005.jpg, and so on.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from kd_jax import interfaces
from kd_jax.data.formats import folder_listing, voc_xml
from kd_jax.types import Record

_THREADS = 8  # that read small files


class _Part(NamedTuple):
  """One list of images.

  Attributes:
    folder: of the year, below `dir`.
    names: of the images, without extension.
    rows: their places in the listing of the folder of images.
  """

  folder: str
  names: tuple[str, ...]
  rows: Int64[np.ndarray, " n"]


class _Table(NamedTuple):
  """The k objects of all n images, image by image."""

  sizes: Int64[np.ndarray, "n 2"]
  starts: Int64[np.ndarray, " n+1"]
  boxes: Float32[np.ndarray, "k 4"]
  classes: Int32[np.ndarray, " k"]
  difficult: Bool[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Images as encoded bytes, in the order of the lists.

  Records hold what `objects` says too. All XML files of the split are read
  once, and checked. Images are read as they are stored: EXIF tags turn neither
  them nor their boxes.

  Attributes:
    dir: where the folders VOC2007, VOC2012, ... are.
    split: lists of images, as YEAR_LIST, joined by '+': '2007_test' is
      VOC2007/ImageSets/Main/test.txt.
    keep_difficult: whether difficult objects are learnt; else they are ignored
      like crowds. They are never counted.
    classes: names of the classes, in order; () is the 20 of VOC.

  Raises:
    ValueError: a folder, list, XML file or image is missing or damaged; a list
      names no image, or one twice; an object has an unknown name or an
      impossible box, see `formats.voc_xml.read`.
  """

  dir: str
  split: str = "2007_trainval+2012_trainval"
  keep_difficult: bool = True
  classes: tuple[str, ...] = ()
  num_classes = 0

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "classes", tuple(self.classes))
    _ = self._table

  @property
  def _place(self) -> str:
    return os.path.expanduser(self.dir)

  @functools.cached_property
  def _listings(self) -> dict[str, folder_listing.Index]:
    """Of the folders of images, by year."""
    found = {}
    for folder in dict.fromkeys(folder for folder, _ in self._asked()):
      images = os.path.join(self._place, folder, "JPEGImages")
      if not os.path.isdir(images):
        raise ValueError(
          f"dir={self.dir!r}: there is no folder {images!r}; set "
          "--config.data.dir to where VOC2007, VOC2012, ... are"
        )
      found[folder] = folder_listing.find(images)
    return found

  def _asked(self) -> list[tuple[str, str]]:
    """(folder, list) of every part of the split."""
    found = []
    for part in self.split.split("+"):
      year, line, name = part.partition("_")
      if not (year and line and name):
        raise ValueError(
          f"split={self.split!r}: {part!r} is no YEAR_LIST; write "
          "2007_trainval, or 2007_trainval+2012_trainval"
        )
      found.append((f"VOC{year}", name))
    return found

  @functools.cached_property
  def _parts(self) -> tuple[_Part, ...]:
    parts = []
    for folder, name in self._asked():
      listing = self._listings[folder]
      items = listing.items(range(len(listing)))
      known = {os.fsdecode(path): row for row, (path, _) in enumerate(items)}
      names = self._lines(folder, name)
      missing = [each for each in names if f"{each}.jpg" not in known]
      if missing:
        place = os.path.join(self._place, folder, "JPEGImages")
        raise ValueError(
          f"{place}: {len(missing)} of {len(names)} images of {name}.txt are "
          f"missing, such as {', '.join(n + '.jpg' for n in missing[:3])}; add "
          "them, or name another list in --config.data.split"
        )
      rows = np.array([known[f"{each}.jpg"] for each in names], np.int64)
      parts.append(_Part(folder, names, rows))
    self._check_once([name for part in parts for name in part.names])
    return tuple(parts)

  def _check_once(self, names: list[str]) -> None:
    name, count = collections.Counter(names).most_common(1)[0]
    if count > 1:
      raise ValueError(
        f"split={self.split!r} names the image {name!r} {count} times; records "
        "would repeat. Take lists without common images"
      )

  def _lines(self, folder: str, name: str) -> tuple[str, ...]:
    sets = os.path.join(self._place, folder, "ImageSets", "Main")
    path = os.path.join(sets, f"{name}.txt")
    try:
      with open(path, encoding="utf-8") as file:
        found = tuple(line.strip() for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"split={self.split!r}: {path!r} cannot be read ({error}); it must be "
        "a text file with the name of an image per line, without '.jpg'"
      ) from error
    if not found:
      raise ValueError(f"split={self.split!r}: {path!r} names no image")
    return found

  @functools.cached_property
  def _places(self) -> tuple[tuple[int, int], ...]:
    """(part, place in it) of every record."""
    return tuple(
      (number, place)
      for number, part in enumerate(self._parts)
      for place in range(len(part.names))
    )

  @functools.cached_property
  def _table(self) -> _Table:
    paths = [
      os.path.join(self._place, part.folder, "Annotations", f"{name}.xml")
      for part in self._parts
      for name in part.names
    ]
    read = functools.partial(voc_xml.read, names=self.box_names)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      found = list(pool.map(read, paths))
    counts = [len(each.classes) for each in found]
    return _Table(
      np.array([each.size for each in found], np.int64),
      np.cumsum([0, *counts], dtype=np.int64),
      np.concatenate([each.boxes for each in found]),
      np.concatenate([each.classes for each in found]),
      np.concatenate([each.difficult for each in found]),
    )

  @property
  def box_names(self) -> tuple[str, ...]:
    """Names of the classes of objects."""
    return self.classes or voc_xml.NAMES

  @functools.cached_property
  def image_ids(self) -> tuple[str, ...]:
    """The images' names, as in the lists."""
    return tuple(name for part in self._parts for name in part.names)

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hex digits of the images' paths and sizes, in order."""
    digest = hashlib.sha256()
    for part in self._parts:
      images = self._listings[part.folder].digest(part.rows)
      digest.update(f"{part.folder}\0{images}\0".encode())
    return digest.hexdigest()[:16]

  def ids(self) -> Iterator[str]:
    """Paths of all images in order, relative to `dir`."""
    return (self._image(index) for index in range(len(self)))

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    return os.path.join(self._place, self._image(index))

  def _image(self, index: int) -> str:
    number, place = self._places[index]
    part = self._parts[number]
    return f"{part.folder}/JPEGImages/{part.names[place]}.jpg"

  def sizes(self) -> Int64[np.ndarray, "n 2"]:
    """Height and width of every image, as its XML file says."""
    return self._table.sizes

  def objects(self, index: int) -> Record:
    """See `DataSource`."""
    index %= len(self)
    table, (start, stop) = self._table, self._table.starts[index : index + 2]
    boxes, difficult = table.boxes[start:stop], table.difficult[start:stop]
    height, width = table.sizes[index].tolist()
    return {
      "size": (height, width),
      "boxes": boxes,
      "classes": table.classes[start:stop],
      "ignored": difficult & (not self.keep_difficult),
      "difficult": difficult,
      "area": (boxes[:, 2:] - boxes[:, :2]).prod(1),
    }

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> Record:
    number, place = self._places[index]
    part = self._parts[number]
    folder = os.path.join(self._place, part.folder, "JPEGImages")
    data = self._listings[part.folder].read(folder, int(part.rows[place]))
    return {
      "image": data,
      "label": -1,
      "id": index % len(self),
      **self.objects(index),
    }
