"""Tar files as WebDataset has them, read without unpacking.

Example: Source('/data/imagenet-train-{000000..000146}.tar').
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.formats import masks
from kd_jax.data.shards import files, names, tar, tar_index, work
from kd_jax.data.sources import sharded
from kd_jax.types import Record

_BLOCK = 8 * 1024 * 1024
_MOST_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Source(sharded.Sharded):
  """Samples of tars on a disk or in a bucket, as encoded images.

  Headers are read once and kept, see `shards.tar_index`; then every image is
  read from its place. What is one sample follows webdataset, see `shards.tar`;
  here it has one image and at most one label.

  Attributes:
    urls: tars, or a directory of them, with braces as in
      'DIR/train-{000000..000127}.tar', or * and ?; several with ::
      between them, or as a tuple. Paths, or addresses such as s3://bucket/a.tar.
    image_key: parts that are the image, such as 'jpg;png' or 'input.jpg'; ''
      is every usual one. A sample must have one of them.
    label_key: part that is the label: 'cls', which holds a number, or
      'json:FIELD', a number in a JSON file. '' is 'cls' if the first sample has
      it, else there are no labels.
    classes: names of the classes, or a text file with a name per line, or
      their number; 0 is one more than the largest label.

  Raises:
    ValueError: no such file; a tar that is compressed, damaged or empty; a
      sample without an image, with several, or with a bad label; or what
      `Sharded` refuses.
  """

  urls: str | tuple[str, ...]
  image_key: str = ""
  label_key: str = ""
  classes: int | str | tuple[str, ...] = 0

  def __post_init__(self) -> None:
    urls = self.urls.split("::") if isinstance(self.urls, str) else self.urls
    # Configs hold lists; the dataclass must stay hashable.
    object.__setattr__(self, "urls", tuple(urls))
    if not isinstance(self.classes, int | str):
      object.__setattr__(self, "classes", tuple(self.classes))
    self._check()

  @functools.cached_property
  def _files(self) -> tuple[files.File, ...]:
    return tuple(names.find(self.urls, "urls", (".tar",)))

  @functools.cached_property
  def _wanted(self) -> tar.Wanted:
    label = self.label_key
    kind, _, field = label.partition(":")
    if label not in ("", "cls") and not (kind == "json" and field):
      raise ValueError(
        f"label_key={label!r}; it must be 'cls', 'json:FIELD' or ''"
      )
    if not label and "cls" in tar.parts(self._files[0]):
      label = "cls"
    needed = self.labels or self.per_class
    return tar.Wanted(self.image_key or tar.IMAGES, label if needed else "")

  @functools.cached_property
  def _table(self) -> np.ndarray:
    return tar_index.table(self._files, self._wanted)

  @interfaces.computed_once
  def _sizes(self) -> Int64[np.ndarray, " blocks"]:
    """Samples that begin in the same 8 MiB of a tar are a block."""
    shards, starts = self._table["shard"], self._table["start"] // _BLOCK
    news = (np.diff(shards) != 0) | (np.diff(starts) != 0)
    return np.diff(np.flatnonzero(np.r_[True, news, True]))

  @property
  def _where(self) -> str:
    return f"urls={self.urls}"

  @interfaces.computed_once
  def _known_labels(self) -> Int64[np.ndarray, " n"]:
    return self._table["label"]

  @interfaces.computed_once
  def _known_names(self) -> tuple[str, ...]:
    if not self._wanted.label:
      return ()
    largest = int(self._known_labels.max())
    found = masks.class_names(self.classes)
    allowed = len(found) or _MOST_CLASSES
    if largest >= allowed:
      raise ValueError(
        f"{self._where}: a label is {largest}, and there are {allowed} classes,"
        " counted from 0; set --config.data.classes, or another label_key"
      )
    return found or tuple(map(str, range(largest + 1)))

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the samples' names and sizes, in order."""
    rows = self._table[np.asarray(self._rows)]
    keys, sizes = rows["key"].tolist(), rows["size"].tolist()
    digest = hashlib.sha256()
    for key, size in zip(keys, sizes, strict=True):
      digest.update(b"%b\0%d\n" % (key, size))
    return digest.hexdigest()[:16]

  def describe(self, index: int) -> str:
    """'<tar>/<sample>' of a record."""
    row = self._table[int(self._rows[index])]
    shard = self._files[int(row["shard"])]
    return f"{shard.path}/{row['key'].decode(errors='surrogateescape')}"

  def ids(self) -> Iterator[str]:
    """'<name of the tar>/<sample>' of all records, in order."""
    for row in self._table[np.asarray(self._rows)]:
      shard = self._files[int(row["shard"])]
      yield f"{shard.name}/{row['key'].decode(errors='surrogateescape')}"

  @functools.cached_property
  def _held(self) -> work.Held[bytes]:
    return work.Held(self._load, self._capacity)

  def _load(self, block: int) -> bytes:
    last = int(self._ends[block])
    first = last - int(self._sizes[block])
    start = self._table[first]["start"]
    stop = self._table[last - 1]["start"] + self._table[last - 1]["size"]
    shard = self._files[int(self._table[first]["shard"])]
    return files.read(shard, int(start), int(stop))

  def _image(self, index: int) -> bytes:
    row, block, place = self._find(index)
    _, start, size = (int(x) for x in self._table[row].tolist()[:3])
    if not self.shuffle_blocks:
      shard = self._files[int(self._table[row]["shard"])]
      return files.read(shard, start, start + size)
    data = self._held.take(block, int(self._kept[block]))
    start -= int(self._table[row - place]["start"])
    return data[start : start + size]

  def __getitem__(self, index: int) -> Record:
    label = -1
    if self.num_classes:
      label = int(self._known_labels[self._rows[index]])
    image = self._image(index)
    return {"image": image, "label": label, "id": index % len(self)}
