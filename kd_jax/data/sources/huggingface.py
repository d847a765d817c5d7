"""Data sets of the Hugging Face hub, read without the package `datasets`.

Examples: Source('/data/imagenet-1k/data', split='train') for parquet files,
Source('/data/saved', split='train') for what `save_to_disk` wrote.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.shards import arrow, files, hub, layout, work
from kd_jax.data.sources import sharded
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Source(sharded.Sharded):
  """Encoded images of parquet or Arrow files on a disk or in a bucket.

  A block is a row group of a parquet file, and is read whole; or a record
  batch of an Arrow file, which on a disk is mapped into memory.

  Attributes:
    path: the files, see `shards.hub.find`.
    image_column: holds the images; '' is the only one that is declared so.
    label_column: holds the labels; '' is the only one that is declared so, or
      the one called 'label'. Without any there are no labels.

  Raises:
    ValueError: no such file, split or column; a file that is damaged or
      unlike the others; several columns or splits to choose from; what
      `Sharded` refuses; for a record, an image that is not there.
  """

  path: str
  image_column: str = ""
  label_column: str = ""

  def __post_init__(self) -> None:
    self._check()

  @functools.cached_property
  def _splits(self) -> Mapping[str, tuple[files.File, ...]]:
    return hub.find(self.path)

  @property
  def _split_names(self) -> tuple[str, ...]:
    names = tuple(self._splits)
    return (*names, "all") if len(names) == 1 else names

  @functools.cached_property
  def _files(self) -> tuple[files.File, ...]:
    name = self.split.partition("[")[0]
    if len(self._splits) == 1 and name == "all":
      return next(iter(self._splits.values()))
    if name not in self._splits:
      raise ValueError(
        f"split={self.split!r}: path={self.path!r} holds the splits "
        f"{list(self._split_names)}; set --config.data.split to one of them, "
        f"or to a part of one, such as '{self._split_names[0]}[:10%]'"
      )
    return self._splits[name]

  @functools.cached_property
  def _layout(self) -> layout.Layout:
    first = self._files[0]
    columns = self.image_column, self.label_column
    return layout.of(arrow.schema(first), *columns, first.path)

  @functools.cached_property
  def _table(self) -> np.ndarray:
    return arrow.blocks(self._files, self.image_column, self.label_column)

  @interfaces.computed_once
  def _sizes(self) -> Int64[np.ndarray, " blocks"]:
    return np.ascontiguousarray(self._table["rows"])

  @property
  def _where(self) -> str:
    return f"path={self.path!r}"

  @interfaces.computed_once
  def _known_labels(self) -> Int64[np.ndarray, " n"]:
    if not self._layout.label:
      return np.broadcast_to(np.int64(-1), int(self._ends[-1]))
    return arrow.labels(self._files, self._table, self._layout)

  @interfaces.computed_once
  def _known_names(self) -> tuple[str, ...]:
    if self._layout.classes or not self._layout.label:
      return self._layout.classes
    return tuple(map(str, range(int(self._known_labels.max()) + 1)))

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the files' names and sizes and of which records."""
    digest = hashlib.sha256(f"{self._layout.image}\0".encode())
    for file in self._files:
      digest.update(f"{file.name}\0{file.size}\n".encode())
    if self.drawn:
      digest.update(np.ascontiguousarray(self._rows).tobytes())
    else:
      digest.update(f"{self._rows}".encode())
    return digest.hexdigest()[:16]

  def _name(self, index: int) -> tuple[files.File, int]:
    """(file, place in it) of a record."""
    row, block, _ = self._find(index)
    shard = int(self._table[block]["shard"])
    first = int(np.searchsorted(self._table["shard"], shard))
    before = int(self._ends[first] - self._sizes[first])
    return self._files[shard], row - before

  def describe(self, index: int) -> str:
    """'<file>/<place in it>' of a record."""
    file, place = self._name(index)
    return f"{file.path}/{place}"

  def ids(self) -> Iterator[str]:
    """'<name of the file>/<place in it>' of all records, in order."""
    for index in range(len(self)):
      file, place = self._name(index)
      yield f"{file.name}/{place}"

  @functools.cached_property
  def _held(self) -> work.Held[arrow.Columns]:
    return work.Held(self._load, self._capacity)

  def _load(self, block: int) -> arrow.Columns:
    shard, start, size, _ = self._table[block].tolist()
    return arrow.load(self._files[shard], start, size, self._layout)

  def __getitem__(self, index: int) -> Record:
    _, block, place = self._find(index)
    columns = self._held.take(block, int(self._kept[block]))
    image = columns.images[place].as_py()
    if image is None:
      image = self._elsewhere(index, columns, place)
    label = -1
    if self.num_classes and columns.labels is not None:
      label = int(columns.labels[place])
    return {"image": image, "label": label, "id": index % len(self)}

  def _elsewhere(self, index: int, columns: arrow.Columns, place: int) -> bytes:
    """The image of a record that has only a path."""
    path = None if columns.paths is None else columns.paths[place].as_py()
    if not path:
      raise ValueError(
        f"{self.describe(index)}: has no image; leave it out, or set "
        "skip_corrupt=True"
      )
    file, _ = self._name(index)
    found = os.path.join(os.path.dirname(file.path), os.path.expanduser(path))
    if files.is_remote(found) or not os.path.isfile(found):
      raise ValueError(
        f"{self.describe(index)}: its image is not in it, and there is no file "
        f"{found!r}; save it again with the images in it (embed_external_files)"
      )
    with open(found, "rb") as opened:
      return opened.read()
