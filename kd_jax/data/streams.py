"""Iterators of batches that own the threads which build them."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import grain
import jax
import numpy as np

Report = Callable[[Sequence[int]], None]
"""Is told the indices of records that could not be read and were skipped."""

BatchT = TypeVar("BatchT")
"""What a stream yields, such as `types.Batch`."""


class Stream(Iterator[BatchT], Generic[BatchT]):
  """An iterator of batches that owns threads: use `with`, or close it.

  Args:
    dataset: of dicts; 'skipped' holds indices of skipped records, else -1.
    build: makes a batch of such a dict without 'skipped'.
    on_skip: is told of the skipped records.
  """

  def __init__(
    self,
    dataset: grain.IterDataset,
    build: Callable[[dict[str, Any]], BatchT],
    on_skip: Report | None = None,
  ) -> None:
    self._held = [iter(dataset)]
    self._build, self._on_skip = build, on_skip
    # Also lets go before the interpreter takes modules apart, where Grain's
    # own destructor fails.
    self._release = weakref.finalize(self, _release, self._held)

  def __next__(self) -> BatchT:
    if not self._held:
      raise ValueError("these batches are closed; make new ones")
    fields = jax.tree.map(_owned, dict(next(self._held[0])))
    skipped = fields.pop("skipped")
    if self._on_skip and (skipped >= 0).any():
      self._on_skip(skipped[skipped >= 0].tolist())
    return self._build(fields)

  def close(self) -> None:
    """Stops the threads and processes behind it; twice does no harm."""
    self._release()

  def __enter__(self) -> Stream[BatchT]:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def check_share(batch_size: int, index: int, count: int) -> None:
  """Whether process `index` of `count` has its share of every batch.

  Raises:
    ValueError: there is no such process, or a batch does not split.
  """
  if not 0 <= index < count:
    raise ValueError(
      f"process_index={index} of process_count={count}; it must be in "
      "[0, process_count)"
    )
  if batch_size < 1 or batch_size % count:
    raise ValueError(
      f"batch_size={batch_size} does not split over {count} processes; it is "
      "the global size and must be a positive multiple of process_count"
    )


@dataclasses.dataclass(frozen=True)
class Share:
  """The rows of every batch that one of several processes reads.

  They are neighbours, so that a batch is the same, row by row, however many
  processes read it.

  Attributes:
    dataset: of all rows, batch after batch.
    rows: of a batch.
    index: of the process.
    count: of processes, which divides `rows`.
  """

  dataset: grain.MapDataset
  rows: int
  index: int
  count: int

  def __len__(self) -> int:
    return len(self.dataset) // self.count

  def __getitem__(self, index: int) -> Any:
    own = self.rows // self.count
    batch, row = divmod(index, own)
    return self.dataset[batch * self.rows + self.index * own + row]


def share(
  dataset: grain.MapDataset, rows: int, index: int, count: int
) -> grain.MapDataset:
  """What one process reads of `dataset`, see `Share`."""
  if count == 1:
    return dataset
  return grain.MapDataset.source(Share(dataset, rows, index, count))


def padded(
  length: int, limit: int | None, batch_size: int
) -> tuple[int, grain.MapDataset]:
  """(number of records of one pass, indices of all rows, padding included).

  Args:
    length: of the source.
    limit: use at most this many of the first records; None takes all.
    batch_size: rows are filled up to a multiple of it.

  Raises:
    ValueError: a limit below 1.
  """
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit}; it must be at least 1, or None for all")
  count = length if limit is None else min(limit, length)
  return count, grain.MapDataset.range(-(-count // batch_size) * batch_size)


def _release(held: list[grain.DatasetIterator]) -> None:
  while held:
    held.pop().close()


def _owned(array: np.ndarray) -> np.ndarray:
  # Workers hand over shared memory, which vanishes with its array object.
  return array if type(array) is np.ndarray else np.array(array)
