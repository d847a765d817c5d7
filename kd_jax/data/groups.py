"""An order whose batches hold images of one orientation."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Int64

from kd_jax.interfaces import DataSource

_EPOCHS = 4  # in use at a time: batches are built ahead


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
