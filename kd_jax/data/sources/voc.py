"""Pascal VOC, and other data in its folders, with boxes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import folder_listing
from kd_jax.data.formats.objects import voc_xml
from kd_jax.data.formats.objects.annotations import Collected, Table
from kd_jax.types import MarkedRecord, Marks, Record

_PART = re.compile(r"(\d+)_(\w+)")


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Images of VOCdevkit with boxes, year after year, in the order of its lists.

  A split is a list of names, VOC2007/ImageSets/Main/test.txt; the images are
  VOC2007/JPEGImages/NAME.jpg, the objects VOC2007/Annotations/NAME.xml.
  Objects that are 'difficult' are not counted in evaluation.

  Attributes:
    dir: VOCdevkit, which holds VOC2007 and others.
    split: years and lists: '2007_test', '2007_trainval+2012_trainval'.
    keep_empty: whether images come too that have no object to learn; evaluation
      needs them.
    skip_invalid: objects that are wrong are left out, counted and named,
      instead of an error.
    classes: names of the classes; () is VOC's 20.
    skip_corrupt: an image that cannot be decoded is replaced by another one,
      instead of an error.
    keep_difficult: whether difficult objects are learnt, as in Detectron2; if
      not, they are ignored in training too.

  Raises:
    ValueError: a file, folder or image is missing or cannot be read, or an
      object is wrong.
  """

  dir: str
  split: str = "2007_trainval+2012_trainval"
  keep_empty: bool = False
  skip_invalid: bool = False
  classes: tuple[str, ...] = ()
  skip_corrupt: bool = False
  keep_difficult: bool = True
  num_classes = 0

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "classes", tuple(self.classes))
    _ = self._files

  @functools.cached_property
  def _parts(self) -> tuple[tuple[str, str], ...]:
    """(year, list) of every part of the split."""
    matches = [_PART.fullmatch(part) for part in self.split.split("+")]
    parts = tuple((m[1], m[2]) for m in matches if m)
    if len(parts) < len(matches) or len(set(parts)) < len(parts):
      raise ValueError(
        f"split={self.split!r} is not 'YEAR_LIST' or several of them, such as "
        "'2007_test' or '2007_trainval+2012_trainval'"
      )
    return parts

  @functools.cached_property
  def _folders(self) -> tuple[str, ...]:
    """The folder of every year."""
    root = os.path.expanduser(self.dir)
    years = dict.fromkeys(year for year, _ in self._parts)
    folders = tuple(os.path.join(root, f"VOC{year}") for year in years)
    for folder in folders:
      if not os.path.isdir(os.path.join(folder, "JPEGImages")):
        raise ValueError(
          f"dir={self.dir!r}: there is no folder "
          f"{os.path.join(folder, 'JPEGImages')!r}; set --config.data.dir to "
          "VOCdevkit, and --config.data.split to years that it holds"
        )
    return folders

  @functools.cached_property
  def _listed(self) -> list[tuple[int, str]]:
    """(number of the year, name) of all images."""
    years = list(dict.fromkeys(year for year, _ in self._parts))
    found = []
    for year, name in self._parts:
      number = years.index(year)
      place = os.path.join(self._folders[number], "ImageSets", "Main")
      path = os.path.join(place, f"{name}.txt")
      found += [(number, each) for each in _lines(path)]
    if len(set(found)) < len(found):
      raise ValueError(
        f"split={self.split!r} names {len(found) - len(set(found))} images "
        "twice; take lists that do not meet"
      )
    return found

  @functools.cached_property
  def _table(self) -> Table:
    numbers = {name: place for place, name in enumerate(self.box_names)}
    found = Collected(masks=False)
    for year, name in self._listed:
      folder = os.path.join(self._folders[year], "Annotations")
      voc_xml.read(os.path.join(folder, f"{name}.xml"), name, numbers, found)
    found.raise_or_count(f"dir={self.dir!r}", skip=self.skip_invalid)
    table = found.table()
    if self.keep_difficult:
      return table
    return dataclasses.replace(table, ignored=table.difficult)

  @functools.cached_property
  def _rows(self) -> Int64[np.ndarray, " n"]:
    """Rows of the table that are kept."""
    kept = self._table.learnt >= (0 if self.keep_empty else 1)
    if not kept.any():
      raise ValueError(
        f"split={self.split!r}: no image has an object to learn; set "
        "--config.data.keep_empty=True to take them all the same"
      )
    return np.flatnonzero(kept)

  @functools.cached_property
  def _indices(self) -> tuple[folder_listing.Index, ...]:
    """Listings of the images of every year."""
    return tuple(
      folder_listing.find(os.path.join(folder, "JPEGImages"))
      for folder in self._folders
    )

  @functools.cached_property
  def _files(self) -> Int64[np.ndarray, "n 2"]:
    """Year of every image, and its place in the listing."""
    rows = self._rows  # what is wrong with annotations shows first
    places = [
      {path: i for i, (path, _) in enumerate(index.items(range(len(index))))}
      for index in self._indices
    ]
    found, missing = [], []
    for row in rows:
      year, name = self._listed[row]
      place = places[year].get(os.fsencode(f"{name}.jpg"))
      if place is None:
        missing.append(f"{name}.jpg")
      found.append((year, place))
    if missing:
      raise ValueError(
        f"dir={self.dir!r} lacks {len(missing)} of the {len(rows)} images of "
        f"split={self.split!r}, such as {missing[0]!r}; copy it again"
      )
    return np.array(found, np.int64)

  @interfaces.computed
  def box_names(self) -> Sequence[str]:
    """Names of the classes."""
    return self.classes or voc_xml.NAMES

  @interfaces.computed
  def image_ids(self) -> list[int | str]:
    """Names of the images, as files of results use them."""
    return [self._table.ids[row] for row in self._rows]

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the images' names and sizes, in order."""
    years = self._files[:, 0]
    digests = [
      index.digest(self._files[years == year, 1])
      for year, index in enumerate(self._indices)
    ]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]

  def objects(self, index: int) -> Marks:
    """See the base; without masks."""
    return self._table.objects(int(self._rows[index]))

  @functools.cached_property
  def _sizes(self) -> Int64[np.ndarray, "n 2"]:
    return self._table.sizes[self._rows]

  def sizes(self) -> Int64[np.ndarray, "n 2"]:
    """Height and width of every image, as its annotation says."""
    return self._sizes

  def object_counts(self) -> Int64[np.ndarray, " n"]:
    """Objects of every image that are not 'ignored'."""
    return self._table.learnt[self._rows]

  def ids(self) -> Iterator[str]:
    """Names of all images, in order."""
    return (str(known) for known in self.image_ids)

  def all_labels(self) -> list[int]:
    """-1 for every record: images have no label as a whole."""
    return [-1] * len(self)

  def describe(self, index: int) -> str:
    """The path of an image, for error messages."""
    year, place = self._files[index]
    name = self._indices[year].path(place)
    return os.path.join(self._folders[year], "JPEGImages", name)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> MarkedRecord:
    year, place = self._files[index]
    folder = os.path.join(self._folders[year], "JPEGImages")
    image = self._indices[year].read(folder, place)
    record: Record = {"image": image, "label": -1, "id": index % len(self)}
    return {**record, **self.objects(index)}


def _lines(path: str) -> list[str]:
  """The names in a list; a second column, as lists of a class have, is cut."""
  try:
    with open(path, encoding="utf-8") as file:
      names = [line.split()[0] for line in file if line.strip()]
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f"{path}: cannot be read ({error}); it must be a text file with the name "
      "of an image per line"
    ) from error
  if not names or len(set(names)) < len(names):
    what = "names no image" if not names else "names an image twice"
    raise ValueError(f"{path} {what}; write one line for each")
  return names
