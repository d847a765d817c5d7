"""A tree of image files; class names are its first directories, or a CSV's."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from kd_jax import interfaces
from kd_jax.data.formats import csv_labels
from kd_jax.data.formats import folder_listing as index_lib
from kd_jax.data.sources import splits, subset
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Image files below `dir`, sorted by path, as encoded bytes.

  There are labels if every file lies in one of two or more directories of
  `dir`: dir/cat/1.jpg, dir/dog/a/b.png. Names that start with a dot are
  skipped, links are followed, capitals in extensions do not matter. The
  listing is cached, see `formats.folder_listing`.

  Attributes:
    dir: the directory.
    split: 'all', or a part of the sorted files such as 'all[:50%]'.
    labels: False hides the labels (-1) and makes `num_classes` 0.
    csv: a CSV file with the labels, instead of the directories. Its header
      names the columns path (relative to `dir`, or absolute) and label; it has
      one line per image. Labels are class names, numbered as sorted: as
      numbers if all are integers.
    per_class: keep so many files of every class, drawn with `seed`, before
      the split is sliced; 0 keeps all. KDEP's 10 % of ImageNet is 128.
    percent: keep this share of all files instead, with or without labels,
      drawn with `seed`; 100 keeps all.
    seed: of the draw.
    rest: keep what the draw leaves instead: a test set beside the training
      set that is the draw.
    skip_corrupt: a file that cannot be decoded is replaced by another one,
      instead of an error.
    exif_rotation: turn photos upright as their EXIF tag says; False for what
      timm and torchvision see, ImageNet for instance.

  Raises:
    ValueError: no such directory, no image below it, a bad split or share, a
      CSV that does not name exactly these files, `per_class` where there are
      no classes or too few files, or `rest` where nothing is left.
  """

  dir: str
  split: str = "all"
  labels: bool = True
  csv: str = ""
  per_class: int = 0
  percent: float = 100.0
  seed: int = 0
  rest: bool = False
  skip_corrupt: bool = False
  exif_rotation: bool = True

  def __post_init__(self) -> None:
    if self.csv:
      _ = self._named
    _ = self._rows

  @property
  def _place(self) -> str:
    return os.path.expanduser(self.dir)

  @functools.cached_property
  def _index(self) -> index_lib.Index:
    return index_lib.find(self._place)

  @functools.cached_property
  def _named(self) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names and (n,) labels of the whole tree, hidden or not."""
    if self.csv:
      return csv_labels.read(self.csv, self._place, self._index)
    tops, names = self._index.tops, self._index.top_names
    if len(names) < 2 or (tops < 0).any():
      return (), np.broadcast_to(np.int32(-1), len(tops))
    order = np.argsort(np.array(names, object))
    rank = np.argsort(order).astype(np.int32)
    return tuple(names[i] for i in order), rank[tops]

  @functools.cached_property
  def _rows(self) -> range | np.ndarray:
    """Positions in the listing of the files that are kept."""
    kept: range | np.ndarray = range(len(self._index))
    if self.drawn:
      names, labels = self._named if self.per_class else ((), None)
      kept = self._draw(names, labels)
    if self.rest:
      kept = self._left(kept)
    _, start, stop = splits.parse(self.split, {"all": len(kept)})
    return kept[start:stop]

  def _draw(
    self, names: tuple[str, ...], labels: np.ndarray | None
  ) -> np.ndarray:
    if self.per_class > 0 and not names:
      raise ValueError(
        f"per_class={self.per_class} needs classes, and dir={self.dir!r} has "
        "none: its files must lie in two or more directories, one per class; "
        "or set csv"
      )
    try:
      return subset.draw(
        len(self._index),
        labels=labels,
        per_class=self.per_class,
        percent=self.percent,
        seed=self.seed,
        class_names=names,
      )
    except ValueError as error:
      raise ValueError(f"dir={self.dir!r}: {error}") from error

  def _left(self, drawn: range | np.ndarray) -> np.ndarray:
    left = np.setdiff1d(np.arange(len(self._index)), drawn)
    if not left.size:
      raise ValueError(
        f"dir={self.dir!r}: rest=True leaves no file: the draw has all "
        f"{len(self._index)}. Lower percent or set per_class"
      )
    return left

  @interfaces.computed
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels, of the whole tree; empty if it has none."""
    return self._named[0] if self.labels else ()

  @interfaces.computed
  def num_classes(self) -> int:
    """Number of classes, or 0 where there are no labels."""
    return len(self.class_names)

  @interfaces.computed
  def drawn(self) -> bool:
    """Whether only a draw of the files is kept."""
    return self.per_class != 0 or self.percent != 100

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the relative paths and sizes, in order."""
    if len(self) == len(self._index):
      return self._index.fingerprint
    return self._index.digest(self._rows)

  def ids(self) -> Iterator[str]:
    """Paths of all records in order, relative to `dir`, with slashes."""
    return (os.fsdecode(path) for path, _ in self._index.items(self._rows))

  def all_labels(self) -> list[int]:
    """The label of every record, in order; -1 where there are none."""
    if not self.labels:
      return [-1] * len(self)
    return self._named[1][np.asarray(self._rows)].tolist()

  def describe(self, index: int) -> str:
    """The path of a record, for error messages."""
    return os.path.join(self._place, self._index.path(self._rows[index]))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    label = int(self._named[1][row]) if self.labels else -1
    data = self._index.read(self._place, row)
    return {"image": data, "label": label, "id": index % len(self)}

  def __getstate__(self) -> dict[str, Any]:
    # The listing pickles as its place: workers see the one of this process.
    kept = {field.name for field in dataclasses.fields(self)} | {"_index"}
    return {name: value for name, value in vars(self).items() if name in kept}
