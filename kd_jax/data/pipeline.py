"""Batches for the devices, through Grain.

Everything is random access: what is at a step follows from the step, so
resuming is slicing, and neither processes, workers nor threads change it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from kd_jax.data import examples
from kd_jax.data.bank import Bank
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import USUAL, Reading, not_negative
from kd_jax.interfaces import DataSource
from kd_jax.types import Batch

Report = Callable[[Sequence[int]], None]
"""Is told the indices of records that could not be read and were skipped."""


class Batches(Iterator[Batch]):
  """An iterator of `Batch` that owns threads: use `with`, or close it."""

  def __init__(
    self, dataset: grain.IterDataset, on_skip: Report | None = None
  ) -> None:
    self._held = [iter(dataset)]
    self._on_skip = on_skip
    # Also lets go before the interpreter takes modules apart, where Grain's
    # own destructor fails.
    self._release = weakref.finalize(self, _release, self._held)

  def __next__(self) -> Batch:
    if not self._held:
      raise ValueError("these batches are closed; make new ones")
    fields = jax.tree.map(_owned, dict(next(self._held[0])))
    skipped = fields.pop("skipped")
    if self._on_skip and (skipped >= 0).any():
      self._on_skip(skipped[skipped >= 0].tolist())
    fields.pop("place", None)
    teacher = fields.pop("teacher", {})
    if fields["label"].ndim == 1:  # whole images, of which the step cuts views
      geometry = fields.pop("geometry")
    else:
      # (images, crops, ...) -> rows; a device gets all crops of its images.
      fields.pop("geometry", None)
      geometry, fields = None, {k: _rows(v) for k, v in fields.items()}
    return Batch(
      **fields,
      teacher={k: _rows(v) for k, v in teacher.items()},
      geometry=geometry,
    )

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
  reading: Reading = USUAL,
  on_skip: Report | None = None,
  bank: Bank | None = None,
) -> Batches:
  """Endless shuffled, augmented batches, from `start_step` on.

  There is one stream of records, epoch after epoch, each shuffled anew. Step s
  holds the n = batch_size / num_crops records from position s n on; position i
  goes to process i % process_count. What happens to a record follows from
  (seed, epoch, record id, crop).

  Args:
    source: where records come from. If it has a true `skip_corrupt`, the next
      readable record takes the place of one that cannot be decoded.
    preprocess: its `train` view is used.
    batch_size: global, in views; every process yields its share of the rows.
    seed: of shuffling and augmentation.
    start_step: number of batches to skip, at no cost.
    process_index: this process.
    process_count: number of processes.
    reading: threads, processes and batches ahead.
    on_skip: is told of every record that was skipped, once per epoch.
    bank: what a teacher said about crops; views are then those of the bank,
      and `Batch.teacher` holds what it stores.

  Raises:
    ValueError: a count is out of range, `batch_size` is not a multiple of
      `process_count` x `num_crops`, or the source is shorter than a batch;
      while iterating, where a record cannot be decoded.
  """
  images = _images(batch_size, preprocess.num_crops)
  _check_share(images, process_index, process_count)
  not_negative(seed=seed, start_step=start_step)
  _check_length(source, images, preprocess.num_crops)
  dataset = shuffled(len(source), seed)
  view_seed = seed if bank is None else bank.header.about["seed"]
  fetch = examples.Train(examples.Decoded(source), preprocess, view_seed, bank)
  dataset = dataset.repeat(None).map_with_index(fetch)
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(images // process_count, drop_remainder=True)
  if bank is not None:
    dataset = dataset.map(examples.Attach(bank, preprocess.num_crops))
  return Batches(reading.of(dataset[start_step:]), on_skip)


def shuffled(length: int, seed: int) -> grain.MapDataset:
  """The order of the records in `train_batches`; [i] is the i-th of epoch 0."""
  return grain.MapDataset.range(length).seed(seed).shuffle()


def eval_batches(
  source: DataSource,
  preprocess: Preprocess,
  *,
  batch_size: int,
  limit: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  on_skip: Report | None = None,
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
    on_skip: is told of every record that was skipped; its row has mask 0.

  Raises:
    ValueError: as `train_batches`, except that any non-empty source will do.
  """
  _check_share(batch_size, process_index, process_count)
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit}; it must be at least 1, or None for all")
  count = len(source) if limit is None else min(limit, len(source))
  padded = -(-count // batch_size) * batch_size
  fetch = examples.Eval(examples.Decoded(source), preprocess, count)
  dataset = grain.MapDataset.range(padded).map(fetch)
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count)
  return Batches(USUAL.of(dataset), on_skip)


def pass_batches(
  source: DataSource,
  preprocess: Preprocess,
  rows: range,
  *,
  number: int,
  batch_size: int,
  seed: int,
) -> Iterator[Mapping[str, np.ndarray]]:
  """What `train_batches` yields in an epoch, but in order, for a bank.

  Args:
    source: where records come from.
    preprocess: its `train` view is used.
    rows: the records; the last batch is filled up with the last one.
    number: of the epoch.
    batch_size: in views.
    seed: of the augmentation.

  Yields:
    {'image': (views, s, s, 3), 'geometry': (images, crops, 5), ...}.
  """
  images = _images(batch_size, preprocess.num_crops)
  fetch = examples.Train(examples.Decoded(source), preprocess, seed)
  padded = -(-len(rows) // images) * images

  def visit(place: int) -> Mapping[str, Any]:
    return fetch.visit(number, rows[min(place, len(rows) - 1)])

  dataset = grain.MapDataset.range(padded).map(visit).batch(images)
  stream = iter(USUAL.of(dataset))
  try:
    for batch in stream:
      yield {**batch, "image": _rows(batch["image"])}
  finally:
    stream.close()


def position(
  step: int, images: int, *, source: DataSource, seed: int
) -> dict[str, Any]:
  """Where `train_batches` stands after `step` batches, for checkpoints.

  Args:
    step: finished steps.
    images: records per step, of all processes.
    source: the source in use.
    seed: the seed in use.

  Returns:
    What JSON can hold: records consumed, epoch, index in the epoch, source
    fingerprint and seed.
  """
  records = step * images
  epoch, index = divmod(records, len(source))
  return {
    "records": records,
    "epoch": epoch,
    "index": index,
    "source": source.fingerprint,
    "seed": seed,
  }


def _release(held: list[grain.DatasetIterator]) -> None:
  while held:
    held.pop().close()


def _owned(array: np.ndarray) -> np.ndarray:
  # Workers hand over shared memory, which vanishes with its array object.
  return array if type(array) is np.ndarray else np.array(array)


def _rows(array: np.ndarray) -> np.ndarray:
  return array.reshape(-1, *array.shape[2:])


def _images(batch_size: int, num_crops: int) -> int:
  """Records of a global batch."""
  if batch_size % num_crops:
    raise ValueError(
      f"batch_size={batch_size} counts views, and every image gives "
      f"num_crops={num_crops}; make it a multiple of that"
    )
  return batch_size // num_crops


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


def _check_length(source: DataSource, images: int, crops: int) -> None:
  if len(source) < images:
    of_each = f" ({images} images, {crops} crops of each)" if crops > 1 else ""
    raise ValueError(
      f"batch_size={images * crops}{of_each} exceeds the source's "
      f"{len(source)} records; lower batch_size or use a larger split"
    )
