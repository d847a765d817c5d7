"""What sources have in common whose records lie together in large files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.data.sources import splits, subset

_MARGIN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharded(interfaces.DataSource):
  """Records in blocks; which of them are kept, and in what order.

  To be written: `_sizes`, `_where`, `_known_labels` and `_known_names`.

  Attributes:
    split: 'all', or a part such as 'all[:50%]'.
    labels: False hides the labels (-1) and makes `num_classes` 0.
    per_class: keep so many records of every class, drawn with `seed`, before
      the split is sliced; 0 keeps all.
    percent: keep this share of all records instead; 100 keeps all.
    seed: of the draw.
    skip_corrupt: an image that cannot be decoded is replaced by another one,
      instead of an error.
    exif_rotation: turn photographs upright as their EXIF tag says.
    shuffle_blocks: so many blocks of records that lie together are read and
      mixed at a time; 0 mixes all records, see `data.order`.

  Raises:
    ValueError: a bad split, share or number, or `per_class` where there are
      no classes or too few records.
  """

  split: str = "all"
  labels: bool = True
  per_class: int = 0
  percent: float = 100.0
  seed: int = 0
  skip_corrupt: bool = False
  exif_rotation: bool = True
  shuffle_blocks: int = 0

  @interfaces.computed
  def _sizes(self) -> Int64[np.ndarray, " blocks"]:
    """Records in every block, before any draw."""
    raise NotImplementedError

  @property
  def _where(self) -> str:
    """The field that says where the records are, for errors."""
    raise NotImplementedError

  @interfaces.computed
  def _known_labels(self) -> Int64[np.ndarray, " n"]:
    """Of all records, hidden or not; -1 where there is none."""
    raise NotImplementedError

  @interfaces.computed
  def _known_names(self) -> tuple[str, ...]:
    """Of the classes, hidden or not."""
    raise NotImplementedError

  @property
  def _split_names(self) -> Sequence[str]:
    """What `split` may begin with."""
    return ("all",)

  def _check(self) -> None:
    """Finds out now what would fail in the middle of an epoch."""
    if self.shuffle_blocks < 0:
      raise ValueError(
        f"shuffle_blocks={self.shuffle_blocks}; it must be at least 0 (mixes "
        "all records)"
      )
    _ = self._rows, self.class_names

  @functools.cached_property
  def _ends(self) -> Int64[np.ndarray, " blocks"]:
    return np.cumsum(self._sizes)

  @functools.cached_property
  def _rows(self) -> range | np.ndarray:
    """Positions of the records that are kept, sorted."""
    count = int(self._ends[-1]) if len(self._ends) else 0
    kept: range | np.ndarray = range(count)
    if self.drawn:
      kept = self._draw(count)
    sizes = dict.fromkeys(self._split_names, len(kept))
    _, start, stop = splits.parse(self.split, sizes)
    return kept[start:stop]

  def _draw(self, count: int) -> np.ndarray:
    try:
      return subset.draw(
        count,
        labels=self._known_labels if self.per_class else None,
        per_class=self.per_class,
        percent=self.percent,
        seed=self.seed,
        class_names=self._known_names if self.per_class else (),
      )
    except ValueError as error:
      raise ValueError(f"{self._where}: {error}") from error

  @interfaces.computed
  def drawn(self) -> bool:
    """Whether only a draw of the records is kept."""
    return self.per_class != 0 or self.percent != 100

  @interfaces.computed
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels; empty if there are none."""
    return self._known_names if self.labels else ()

  @interfaces.computed
  def num_classes(self) -> int:
    """Number of classes, or 0 where there are no labels."""
    return len(self.class_names)

  @functools.cached_property
  def _kept(self) -> Int64[np.ndarray, " blocks"]:
    """Records that are kept of every block."""
    if isinstance(self._rows, range):
      ends = np.clip(self._ends, self._rows.start, self._rows.stop)
      return np.diff(ends, prepend=self._rows.start)
    return np.diff(np.searchsorted(self._rows, self._ends), prepend=0)

  def blocks(self) -> Int64[np.ndarray, " blocks"]:
    """Numbers of kept records that lie together, in order."""
    return self._kept[self._kept > 0]

  def _find(self, index: int) -> tuple[int, int, int]:
    """(row, its block, place in the block) of a record."""
    row = int(self._rows[index])
    block = int(np.searchsorted(self._ends, row, side="right"))
    return row, block, row - int(self._ends[block] - self._sizes[block])

  @property
  def _capacity(self) -> int:
    """Blocks held in memory: those that are mixed, and those that follow."""
    return 2 * self.shuffle_blocks + _MARGIN

  def all_labels(self) -> list[int]:
    """The label of every record, in order; -1 where there are none."""
    if not self.num_classes:
      return [-1] * len(self)
    return self._known_labels[np.asarray(self._rows)].tolist()

  def ids(self) -> Iterator[str]:
    """A name for every record, in order."""
    return map(self.describe, range(len(self)))

  def __len__(self) -> int:
    return len(self._rows)

  def __getstate__(self) -> dict[str, Any]:
    # Workers read the index that is on disk, and open files themselves; what
    # was listed is kept, so that all of them see the same files.
    kept = {field.name for field in dataclasses.fields(self)} | {"_files"}
    return {name: value for name, value in vars(self).items() if name in kept}
