"""Where every image of many tar files is: found once, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_jax.data.formats import array_cache
from kd_jax.data.shards import tar, work
from kd_jax.data.shards.files import File

_VERSION = 1


def table(shards: Sequence[File], wanted: tar.Wanted) -> np.ndarray:
  """All samples of some tars, in order.

  The headers are read at the first time; a shard that changes is read again,
  with all others.

  Args:
    shards: the tars.
    wanted: what is taken of a sample.

  Returns:
    (n,) array with the fields 'shard', 'start', 'size', 'label' (int64) and
    'key' (bytes), mapped into memory.

  Raises:
    ValueError: as `tar.samples`, for the first bad shard.
  """

  def read(number: int) -> np.ndarray:
    rows = [
      (number, found.start, found.size, found.label, _encoded(found.key))
      for found in tar.samples(shards[number], wanted)
    ]
    width = max(len(row[-1]) for row in rows)
    fields = ("shard", "start", "size", "label")
    kind = [*((name, np.int64) for name in fields), ("key", f"S{width}")]
    return np.array(rows, kind)

  def build() -> np.ndarray:
    title = f"headers of {len(shards)} tars"
    return np.concatenate(work.each(read, range(len(shards)), title))

  identity = f"{_VERSION}\0{wanted}\0{tuple(shards)}"
  return array_cache.table("tar", identity, build)


def _encoded(key: str) -> bytes:
  return key.encode(errors="surrogateescape")
