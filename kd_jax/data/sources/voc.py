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

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import folder_listing, voc_xml
from kd_jax.data.formats.annotations import Collected, Table
from kd_jax.types import Record

_THREADS = 8  # that read small files


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
    keep_empty: keep images without an object that is to be learnt; for tests,
      which count what is found on them.
    skip_invalid: objects that are wrong are left out, counted and named,
      instead of an error.
    classes: names of the classes, in order; () is the 20 of VOC.
    skip_corrupt: an image that cannot be decoded is replaced by another one,
      instead of an error.

  Raises:
    ValueError: a folder, list, XML file or image is missing or damaged; the
      lists name no image, or one twice; an object has an unknown name or an
      impossible box; or no image is left.
  """

  dir: str
  split: str = "2007_trainval+2012_trainval"
  keep_difficult: bool = True
  keep_empty: bool = False
  skip_invalid: bool = False
  classes: tuple[str, ...] = ()
  skip_corrupt: bool = False
  num_classes = 0

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "classes", tuple(self.classes))
    _ = self._places, self._rows

  @property
  def _root(self) -> str:
    return os.path.expanduser(self.dir)

  def _folder(self, year: str, *parts: str) -> str:
    return os.path.join(self._root, f"VOC{year}", *parts)

  @functools.cached_property
  def _listed(self) -> tuple[tuple[str, str], ...]:
    """(year, name) of all images of the split."""
    found: list[tuple[str, str]] = []
    for part in self.split.split("+"):
      year, line, name = part.partition("_")
      if not (year and line and name):
        raise ValueError(
          f"split={self.split!r}: {part!r} is no YEAR_LIST; write "
          "2007_trainval, or 2007_trainval+2012_trainval"
        )
      found += [(year, image) for image in self._lines(year, name)]
    # Results are told apart by the names alone.
    names = collections.Counter(name for _, name in found)
    name, count = names.most_common(1)[0]
    if count > 1:
      raise ValueError(
        f"split={self.split!r} names the image {name!r} {count} times; take "
        "lists without common images"
      )
    return tuple(found)

  def _lines(self, year: str, name: str) -> list[str]:
    path = self._folder(year, "ImageSets", "Main", f"{name}.txt")
    try:
      with open(path, encoding="utf-8") as file:
        found = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"split={self.split!r}: {path!r} cannot be read ({error}); set "
        "--config.data.dir to the folder of VOC2007, VOC2012, ..., and name a "
        "list that is there"
      ) from error
    if not found:
      raise ValueError(f"split={self.split!r}: {path!r} names no image")
    return found

  @functools.cached_property
  def _listings(self) -> dict[str, folder_listing.Index]:
    """Of the folders of images, by year."""
    found = {}
    for year in dict.fromkeys(year for year, _ in self._listed):
      images = self._folder(year, "JPEGImages")
      if not os.path.isdir(images):
        raise ValueError(
          f"dir={self.dir!r}: there is no folder {images!r}; set "
          "--config.data.dir to where VOC2007, VOC2012, ... are"
        )
      found[year] = folder_listing.find(images)
    return found

  @functools.cached_property
  def _places(self) -> Int64[np.ndarray, " images"]:
    """Place of every image of the split in the listing of its year."""
    known = {
      (year, os.fsdecode(path)): place
      for year, listing in self._listings.items()
      for place, (path, _) in enumerate(listing.items(range(len(listing))))
    }
    wanted = [(year, f"{name}.jpg") for year, name in self._listed]
    missing = [each for each in wanted if each not in known]
    if missing:
      some = ", ".join(f"VOC{y}/JPEGImages/{name}" for y, name in missing[:3])
      raise ValueError(
        f"dir={self.dir!r}: {len(missing)} of {len(wanted)} images of "
        f"split={self.split!r} are missing, such as {some}; add them, or name "
        "other lists in --config.data.split"
      )
    return np.array([known[each] for each in wanted], np.int64)

  @functools.cached_property
  def _table(self) -> Table:
    paths = [
      self._folder(year, "Annotations", f"{name}.xml")
      for year, name in self._listed
    ]
    read = functools.partial(voc_xml.read, names=self.box_names)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      files = list(pool.map(read, paths))
    found = Collected(masks=False)
    for (_, name), file in zip(self._listed, files, strict=True):
      row = found.image(f"{name}.jpg", name, file.size)
      for where, problem in file.problems:
        found.problem(where, problem)
      for box, kind, difficult in file.things:
        found.add(
          row,
          boxes=box,
          classes=kind,
          ignored=difficult and not self.keep_difficult,
          difficult=difficult,
          area=(box[2] - box[0]) * (box[3] - box[1]),
        )
    found.raise_or_count(f"dir={self.dir!r}", skip=self.skip_invalid)
    return found.table()

  @functools.cached_property
  def _rows(self) -> Int64[np.ndarray, " n"]:
    """Places in the split of the images that are kept."""
    kept = np.flatnonzero(self._table.learnt >= (0 if self.keep_empty else 1))
    if not len(kept):
      raise ValueError(
        f"split={self.split!r}: no image has an object to learn; set "
        "--config.data.keep_empty=True to take them all the same"
      )
    return kept

  @property
  def box_names(self) -> tuple[str, ...]:
    """Names of the classes of objects."""
    return self.classes or voc_xml.NAMES

  @functools.cached_property
  def image_ids(self) -> tuple[str, ...]:
    """The images' names, as in the lists."""
    return tuple(self._listed[row][1] for row in self._rows)

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hex digits of the images' paths and sizes, in order."""
    digest = hashlib.sha256()
    for row in self._rows:
      year = self._listed[row][0]
      listing, place = self._listings[year], int(self._places[row])
      line = f"{year}\0{listing.path(place)}\0{listing.sizes[place]}\0"
      digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]

  def ids(self) -> Iterator[str]:
    """Paths of all images in order, relative to `dir`."""
    for row in self._rows:
      year, name = self._listed[row]
      yield f"VOC{year}/JPEGImages/{name}.jpg"

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    year, name = self._listed[self._rows[index]]
    return self._folder(year, "JPEGImages", f"{name}.jpg")

  def sizes(self) -> Int64[np.ndarray, "n 2"]:
    """Height and width of every image, as its XML file says."""
    return self._table.sizes[self._rows]

  def objects(self, index: int) -> Record:
    """See `DataSource`; with 'difficult', and without masks."""
    return self._table.objects(int(self._rows[index]))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = int(self._rows[index])
    year = self._listed[row][0]
    folder = self._folder(year, "JPEGImages")
    data = self._listings[year].read(folder, int(self._places[row]))
    known = {"image": data, "label": -1, "id": index % len(self)}
    return {**known, **self.objects(index)}
