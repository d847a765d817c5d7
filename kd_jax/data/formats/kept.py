"""Decoded images that stay in memory, for sets that are small enough."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from kd_jax.types import Record


class Kept:
  """The first decoded records that come, as long as they fit.

  None is given up for another: epochs are shuffled, so that all are needed
  equally often.

  Args:
    limit: bytes of all their arrays.
  """

  def __init__(self, limit: int) -> None:
    self._left = limit
    self._records: dict[int, Record] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._records)

  def get(self, index: int) -> Record | None:
    """The record, whose arrays all who ask share, if it was kept."""
    return self._records.get(index)

  def offer(self, index: int, record: Record) -> None:
    """Keeps a record if there is room."""
    arrays = _arrays(record)
    size = sum(array.nbytes for array in arrays)
    with self._lock:
      if index in self._records or size > self._left:
        return
      self._left -= size
      for array in arrays:
        array.flags.writeable = False
      self._records[index] = record


def _arrays(record: Mapping[str, object]) -> list[np.ndarray]:
  return [x for x in record.values() if isinstance(x, np.ndarray)]
