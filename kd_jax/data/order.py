"""An order that mixes records and yet reads them block by block."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

_EPOCHS = 4  # in use at a time: batches are built ahead
_ORDERS = 4096


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
    self, blocks: Sequence[int], *, lanes: int, images: int, seed: int
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
    shuffle = _permutation(self._seed, epoch, block + 1, size)
    return int(self._firsts[block] + shuffle[inside])

  @functools.lru_cache(maxsize=_EPOCHS)  # noqa: B019 - lives as long as a run
  def _epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
    """Order of blocks, their ends; of lanes, rows before it and first place."""
    order = _permutation(self._seed, epoch, 0, len(self._sizes))
    before = self._passed(epoch * self._count)
    lengths = self._passed((epoch + 1) * self._count) - before
    starts = np.cumsum(lengths) - lengths
    return order, np.cumsum(self._sizes[order]), before, starts

  def _passed(self, position: int) -> Int64[np.ndarray, " lanes"]:
    """Rows of every lane before a position of the stream."""
    batches, row = divmod(position, self._images)
    widths = np.diff(self._edges)
    return batches * widths + np.clip(row - self._edges[:-1], 0, widths)


@functools.lru_cache(maxsize=_ORDERS)
def _permutation(
  seed: int, epoch: int, number: int, size: int
) -> Int64[np.ndarray, " size"]:
  """The same on every machine and with every version of NumPy."""
  bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, number, 0])
  return np.argsort(bits.random_raw(size), kind="stable")
