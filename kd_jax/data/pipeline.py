"""Batches for the devices, through Grain.

Everything is random access: what is at a step follows from the step, so
resuming is slicing, and neither processes, workers nor threads change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np

from kd_jax.data import examples
from kd_jax.data.bank import Bank
from kd_jax.data.order import (
  FEW,
  BlockOrder,
  FewOrder,
  GroupOrder,
  portraits,
)
from kd_jax.data.reading import USUAL, Reading, not_negative
from kd_jax.data.streams import Report, Stream, check_share, padded, share
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.types import Batch

Batches = Stream[Batch]
"""An iterator of `Batch` that owns threads: use `with`, or close it."""


# One argument per thing that a run can choose; grouping them would only hide
# the count.
def train_batches(  # noqa: PLR0913
  source: DataSource,
  preprocess: Views,
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
  holds the n = batch_size / num_crops records from position s n on, of which
  every process reads its share of neighbours. What happens to a record follows
  from (seed, epoch, record id, crop).

  Args:
    source: where records come from. If it has a true `skip_corrupt`, the next
      readable record takes the place of one that cannot be decoded.
    preprocess: its `train` view is used.
    batch_size: global, in views; every process yields its share of the rows.
    seed: of shuffling and augmentation.
    start_step: number of batches to skip, at no cost.
    process_index: this process.
    process_count: number of processes.
    reading: threads, processes, batches ahead, and images that are kept.
    on_skip: is told of every record that was skipped, once per epoch.
    bank: what a teacher said about crops; views are then those of the bank,
      and `Batch.teacher` holds what it stores.

  Raises:
    ValueError: a count is out of range, `batch_size` is not a multiple of
      `process_count` x `num_crops`, or the source is shorter than a batch;
      while iterating, where a record cannot be decoded.
  """
  images = _images(batch_size, preprocess.num_crops)
  check_share(images, process_index, process_count)
  not_negative(seed=seed, start_step=start_step)
  _check_length(source, images, preprocess.num_crops)
  dataset = shuffled(source, seed, images, oriented=preprocess.oriented)
  view_seed = seed if bank is None else bank.header.about["seed"]
  fetch = examples.Train(
    examples.Decoded(source, reading.keeps()),
    preprocess,
    view_seed,
    bank,
    images,
    rows=len(dataset),
  )
  dataset = dataset.repeat(None).map_with_index(fetch)
  dataset = share(dataset, images, process_index, process_count)
  dataset = reading.batched(dataset, images // process_count)
  if bank is not None:
    dataset = dataset.map(examples.Attach(bank, preprocess.num_crops))
  build = _whole if preprocess.canvas else _views
  return Stream(reading.of(dataset[start_step:]), build, on_skip)


def shuffled(
  source: DataSource, seed: int, images: int, *, oriented: bool = False
) -> grain.MapDataset[int]:
  """The order of the records in `train_batches`; [i] is the i-th of epoch 0.

  Its length is that of an epoch.

  Args:
    source: where records come from; its `shuffle_blocks` says how.
    seed: of shuffling.
    images: records in a global batch.
    oriented: see `Views`.

  Raises:
    ValueError: `shuffle_blocks` is larger than a batch.
  """
  if oriented:
    turned = portraits(source)
    if turned.any() and not turned.all():
      batched = GroupOrder(turned, images=images, seed=seed)
      return grain.MapDataset.range(len(batched)).map_with_index(batched)
  rows = grain.MapDataset.range(len(source))
  if not source.shuffle_blocks:
    if len(source) <= FEW:
      return rows.map_with_index(FewOrder(len(source), seed))
    return rows.seed(seed).shuffle()
  lanes = min(source.shuffle_blocks, len(source.blocks()))
  order = BlockOrder(source.blocks(), lanes=lanes, images=images, seed=seed)
  return rows.map_with_index(order)


def eval_batches(
  source: DataSource,
  preprocess: Views,
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
  check_share(batch_size, process_index, process_count)
  count, rows = padded(len(source), limit, batch_size)
  fetch = examples.Eval(examples.Decoded(source), preprocess, count)
  dataset = rows.map(fetch)
  dataset = share(dataset, batch_size, process_index, process_count)
  dataset = USUAL.batched(dataset, batch_size // process_count)
  return Stream(USUAL.of(dataset), _views, on_skip)


def pass_batches(
  source: DataSource,
  preprocess: Views,
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
  count, places = padded(len(rows), None, images)

  def visit(place: int) -> Mapping[str, Any]:
    return fetch.visit(number, rows[min(place, count - 1)])

  dataset = USUAL.batched(places.map(visit), images)
  stream = iter(USUAL.of(dataset))
  try:
    for batch in stream:
      yield {**batch, "image": _rows(batch["image"])}
  finally:
    stream.close()


def position(
  step: int,
  images: int,
  *,
  source: DataSource,
  seed: int,
  oriented: bool = False,
) -> dict[str, Any]:
  """Where `train_batches` stands after `step` batches, for checkpoints.

  Args:
    step: finished steps.
    images: records per step, of all processes.
    source: the source in use.
    seed: the seed in use.
    oriented: as the views in use say.

  Returns:
    What JSON can hold: records consumed, epoch, index in the epoch, source
    fingerprint and seed.
  """
  records = step * images
  order = shuffled(source, seed, images, oriented=oriented)
  epoch, index = divmod(records, len(order))
  return {
    "records": records,
    "epoch": epoch,
    "index": index,
    "source": source.fingerprint,
    "seed": seed,
  }


def _whole(fields: dict[str, Any]) -> Batch:
  """A batch of whole images, of which the step cuts views."""
  return _batch(fields, geometry=fields.pop("geometry"))


def _views(fields: dict[str, Any]) -> Batch:
  """(images, crops, ...) -> rows; a device gets all crops of its images."""
  fields.pop("geometry", None)
  teacher = fields.pop("teacher", {})
  rows = jax.tree.map(_rows, fields)
  return _batch({**rows, "teacher": teacher})


def _batch(fields: dict[str, Any], geometry: np.ndarray | None = None) -> Batch:
  fields.pop("place", None)
  teacher = {k: _rows(v) for k, v in fields.pop("teacher", {}).items()}
  return Batch(**fields, teacher=teacher, geometry=geometry)


def _rows(array: np.ndarray) -> np.ndarray:
  images, crops, *rest = array.shape
  return array.reshape(images * crops, *rest)


def _images(batch_size: int, num_crops: int) -> int:
  """Records of a global batch."""
  if batch_size % num_crops:
    raise ValueError(
      f"batch_size={batch_size} counts views, and every image gives "
      f"num_crops={num_crops}; make it a multiple of that"
    )
  return batch_size // num_crops


def _check_length(source: DataSource, images: int, crops: int) -> None:
  if len(source) < images:
    of_each = f" ({images} images, {crops} crops of each)" if crops > 1 else ""
    raise ValueError(
      f"batch_size={images * crops}{of_each} exceeds the source's "
      f"{len(source)} records; lower batch_size or use a larger split"
    )
