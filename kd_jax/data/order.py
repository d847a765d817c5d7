"""Orders of records: of few, block by block, or by orientation."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int64

from kd_jax.interfaces import DataSource, Numbers

_EPOCHS = 4  # in use at a time: batches are built ahead
_ORDERS = 4096
FEW = 2**16
"""Records whose whole order is worth keeping."""
_FEW_ORDERS = 64  # at most 32 MB


@dataclasses.dataclass(frozen=True)
class FewOrder:
  """A permutation of few records, another one in every epoch.

  Grain finds a place by walking through at least 2^16 of them until one is a
  record: 0.5 ms for one of 100, as long as a training step needs for it.

  Attributes:
    length: number of records.
    seed: of shuffling.
  """

  length: int
  seed: int

  def __call__(self, position: int, _: object = None) -> int:
    """The record at a position, which counts on over all epochs."""
    epoch, place = divmod(position, self.length)
    return int(_few_order(self.seed, epoch, self.length)[place])


class BlockOrder:
  """Which record stands at a position of the endless stream.

  Blocks are shuffled, laid end to end, and cut into lanes of one length. A
  batch takes equally many records of every lane, and inside a block they come
  in an order of their own. So as many blocks as lanes are in use at a time.
  Rows of a batch from k / lanes to (k + 1) / lanes are those of lane k: of H
  processes that take a part of the rows each, where H divides `lanes`, each
  reads blocks that the others do not need.

  Everything follows from (seed, epoch, position): nothing is remembered but
  the order of the blocks. It is a permutation of the records in every epoch.

  Args:
    blocks: numbers of records that lie together.
    lanes: blocks that are mixed at a time.
    images: records in a batch, of all processes.
    seed: of shuffling.

  Raises:
    ValueError: a batch has fewer images than lanes.
  """

  def __init__(
    self, blocks: Numbers, *, lanes: int, images: int, seed: int
  ) -> None:
    if lanes > images:
      raise ValueError(
        f"shuffle_blocks={lanes} exceeds the {images} images of a batch, which "
        "takes some of every block; lower --config.data.shuffle_blocks to a "
        f"divisor of {images}"
      )
    self._sizes = np.asarray(blocks, np.int64)
    self._firsts = np.cumsum(self._sizes) - self._sizes
    self._count = int(self._sizes.sum())
    self._seed, self._images = seed, images
    # Lane k has the rows from edges[k] on of every batch.
    self._edges = -(-np.arange(lanes + 1) * images // lanes)

  def __call__(self, position: int, _: object = None) -> int:
    """The record at a position, which counts on over all epochs."""
    epoch = position // self._count
    order, ends, before, starts = self._epoch(epoch)
    row = position % self._images
    lane = int(np.searchsorted(self._edges, row, side="right")) - 1
    rank = self._passed(position)[lane] - before[lane]
    place = int(starts[lane] + rank)
    turn = int(np.searchsorted(ends, place, side="right"))
    block = int(order[turn])
    size = int(self._sizes[block])
    inside = place - (int(ends[turn]) - size)
    shuffle = _block_order(self._seed, epoch, block + 1, size)
    return int(self._firsts[block] + shuffle[inside])

  @functools.lru_cache(maxsize=_EPOCHS)  # noqa: B019 - lives as long as a run
  def _epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
    """Order of blocks, their ends; of lanes, rows before it and first place."""
    order = _block_order(self._seed, epoch, 0, len(self._sizes))
    before = self._passed(epoch * self._count)
    lengths = self._passed((epoch + 1) * self._count) - before
    starts = np.cumsum(lengths) - lengths
    return order, np.cumsum(self._sizes[order]), before, starts

  def _passed(self, position: int) -> Int64[np.ndarray, " lanes"]:
    """Rows of every lane before a position of the stream."""
    batches, row = divmod(position, self._images)
    widths = np.diff(self._edges)
    return batches * widths + np.clip(row - self._edges[:-1], 0, widths)


def portraits(source: DataSource) -> Bool[np.ndarray, " n"]:
  """Whether images are higher than wide; none where all have one size."""
  sizes = source.sizes()
  if sizes is None:
    return np.zeros(len(source), bool)
  return sizes[:, 0] > sizes[:, 1]


class GroupOrder:
  """Which record stands at a position of the endless stream.

  In every epoch the records of each group are shuffled and cut into batches;
  the last one is filled up with records from the beginning of the same group.
  Batches of all groups come in random order. So every record comes at least
  once per epoch. Everything follows from (seed, epoch, position).

  Args:
    group: of every record.
    images: records in a batch, of all processes.
    seed: of shuffling.
  """

  def __init__(
    self, group: Int64[np.ndarray, " n"], *, images: int, seed: int
  ) -> None:
    self._seed, self._images = seed, images
    self._groups = [np.flatnonzero(group == g) for g in np.unique(group)]

  def __len__(self) -> int:
    """Positions of an epoch."""
    batches = sum(-(-len(rows) // self._images) for rows in self._groups)
    return batches * self._images

  def __call__(self, position: int, _: object = None) -> int:
    """The record at a position, which counts on over all epochs."""
    epoch, place = divmod(position, len(self))
    return int(self._epoch(epoch)[place])

  @functools.lru_cache(maxsize=_EPOCHS)  # noqa: B019 - lives as long as a run
  def _epoch(self, epoch: int) -> Int64[np.ndarray, " positions"]:
    # The stream of Philox is the same with every version of NumPy.
    bits = np.random.Philox(key=[self._seed, epoch])
    batches = []
    for rows in self._groups:
      order = rows[np.argsort(bits.random_raw(len(rows)), kind="stable")]
      length = -(-len(rows) // self._images) * self._images
      batches.append(np.resize(order, length).reshape(-1, self._images))
    found = np.concatenate(batches)
    mixed = np.argsort(bits.random_raw(len(found)), kind="stable")
    return found[mixed].reshape(-1)


@functools.lru_cache(maxsize=_ORDERS)
def _block_order(
  seed: int, epoch: int, number: int, size: int
) -> Int64[np.ndarray, " size"]:
  return _permutation(seed, epoch, number, size)


@functools.lru_cache(maxsize=_FEW_ORDERS)
def _few_order(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
  return _permutation(seed, epoch, 0, size)


def _permutation(
  seed: int, epoch: int, number: int, size: int
) -> Int64[np.ndarray, " size"]:
  """The same on every machine and with every version of NumPy."""
  bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, number, 0])
  return np.argsort(bits.random_raw(size), kind="stable")
