"""Batches for the devices, through Grain.

Everything is random access: what is at a step follows from the step, so
resuming is slicing, and neither processes, workers nor threads change it.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from kd_jax.data.decode import decode
from kd_jax.data.preprocess import Preprocess
from kd_jax.types import Batch, DataSource, Record


class Batches(Iterator[Batch]):
  """An iterator of `Batch` that owns threads: use `with`, or close it."""

  def __init__(self, dataset: grain.IterDataset):
    self._held = [iter(dataset)]
    # Also lets go before the interpreter takes modules apart, where Grain's
    # own destructor fails.
    self._release = weakref.finalize(self, _release, self._held)

  def __next__(self) -> Batch:
    if not self._held:
      raise ValueError("these batches are closed; make new ones")
    return Batch(**{k: _owned(v) for k, v in next(self._held[0]).items()})

  def close(self) -> None:
    """Stops the threads and processes behind it; twice does no harm."""
    self._release()

  def __enter__(self) -> Batches:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


# One argument per thing that a run can choose; grouping them would only hide
# the count.
def train_batches(  # noqa: PLR0913
  source: DataSource,
  preprocess: Preprocess,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_workers: int = 0,
  num_threads: int = 8,
  prefetch: int = 8,
) -> Batches:
  """Endless shuffled, augmented batches, from `start_step` on.

  Step s holds positions s*batch_size .. (s+1)*batch_size-1 of one stream of
  epochs, each shuffled anew; position i goes to process i % process_count.

  Args:
    source: where records come from.
    preprocess: its `train` view is used.
    batch_size: global; every process yields its share of the rows.
    seed: of shuffling and augmentation.
    start_step: number of batches to skip, at no cost.
    process_index: this process.
    process_count: number of processes.
    num_workers: worker processes; 0 uses threads only, which is cheaper below
      about 9000 images a second.
    num_threads: threads per process, each builds one batch; 0 is none.
    prefetch: batches built ahead, which cost memory; no more threads than
      this are used.

  Raises:
    ValueError: a count is out of range, `batch_size` is not a multiple of
      `process_count`, or the source is shorter than a batch; while iterating,
      where a record cannot be decoded.
  """
  _check_share(batch_size, process_index, process_count)
  _check_counts(
    seed=seed,
    start_step=start_step,
    num_workers=num_workers,
    num_threads=num_threads,
    prefetch=prefetch,
  )
  if len(source) < batch_size:
    raise ValueError(
      f"batch_size={batch_size} exceeds the source's {len(source)} records; "
      "lower batch_size or use a larger split"
    )
  dataset = grain.MapDataset.source(_Decoded(source)).seed(seed).shuffle()
  dataset = dataset.repeat(None).random_map(_Train(preprocess))
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count, drop_remainder=True)
  dataset = _to_iter(dataset[start_step:], num_threads, prefetch)
  if num_workers:
    _parse_flags()
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers))
  return Batches(dataset)


def eval_batches(
  source: DataSource,
  preprocess: Preprocess,
  *,
  batch_size: int,
  limit: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """One pass in order; the last batch is filled up with rows of mask 0.

  Args:
    source: where records come from.
    preprocess: its `eval` view is used.
    batch_size: global; every process yields its share of the rows, and all
      processes yield the same number of batches.
    limit: use at most this many of the first records.
    process_index: this process.
    process_count: number of processes.

  Raises:
    ValueError: as `train_batches`, except that any non-empty source will do.
  """
  _check_share(batch_size, process_index, process_count)
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit}; it must be at least 1, or None for all")
  count = len(source) if limit is None else min(limit, len(source))
  padded = -(-count // batch_size) * batch_size
  fetch = _Eval(_Decoded(source), preprocess, count)
  dataset = grain.MapDataset.range(padded).map(fetch)
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count)
  return Batches(_to_iter(dataset, num_threads=8, prefetch=8))


def position(
  step: int, batch_size: int, *, source: DataSource, seed: int
) -> dict[str, Any]:
  """Where `train_batches` stands after `step` batches, for checkpoints.

  Args:
    step: finished steps.
    batch_size: global.
    source: the source in use.
    seed: the seed in use.

  Returns:
    What JSON can hold: records consumed, epoch, index in the epoch, source
    fingerprint and seed.
  """
  records = step * batch_size
  epoch, index = divmod(records, len(source))
  return {
    "records": records,
    "epoch": epoch,
    "index": index,
    "source": source.fingerprint,
    "seed": seed,
  }


@dataclasses.dataclass(frozen=True)
class _Decoded:
  """A source whose images are pixels; errors name the record."""

  source: DataSource

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    if not isinstance(record["image"], bytes):
      return record
    describe = getattr(self.source, "describe", "record {}".format)
    return {**record, "image": decode(record["image"], describe(index))}


@dataclasses.dataclass(frozen=True)
class _Train:
  preprocess: Preprocess

  def __call__(
    self, record: Record, rng: np.random.Generator
  ) -> Mapping[str, Any]:
    return _row(self.preprocess.train(record, rng), record["label"], 1.0)


@dataclasses.dataclass(frozen=True)
class _Eval:
  source: _Decoded
  preprocess: Preprocess
  count: int

  def __call__(self, index: int) -> Mapping[str, Any]:
    if index >= self.count:
      size = self.preprocess.image_size
      return _row(np.zeros((size, size, 3), np.uint8), -1, 0.0)
    record = self.source[index]
    return _row(self.preprocess.eval(record), record["label"], 1.0)


def _release(held: list[grain.DatasetIterator]) -> None:
  while held:
    held.pop().close()


def _owned(array: np.ndarray) -> np.ndarray:
  # Workers hand over shared memory, which vanishes with its array object.
  return array if type(array) is np.ndarray else np.array(array)


def _row(image: np.ndarray, label: int, mask: float) -> Mapping[str, Any]:
  return {
    "image": image,
    "label": np.int32(label),
    "mask": np.float32(mask),
  }


def _to_iter(
  dataset: grain.MapDataset, num_threads: int, prefetch: int
) -> grain.IterDataset:
  # Grain's own default builds 500 batches ahead: gigabytes.
  options = grain.ReadOptions(
    num_threads=min(num_threads, prefetch), prefetch_buffer_size=prefetch
  )
  return dataset.to_iter_dataset(options)


def _check_share(batch_size: int, index: int, count: int) -> None:
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


def _check_counts(**counts: int) -> None:
  for name, value in counts.items():
    if value < 0:
      raise ValueError(f"{name}={value}; it must be at least 0")


def _parse_flags() -> None:
  # Grain's workers read absl flags, which only absl.app.run parses.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
