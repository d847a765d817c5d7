"""Work on many files at a time, and what of them is kept in memory."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Generic, TypeVar

from tqdm import tqdm

_THREADS = 32  # most of the time they wait for a disk or a network

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
BlockT = TypeVar("BlockT")


def each(
  function: Callable[[ItemT], ResultT], items: Sequence[ItemT], title: str
) -> list[ResultT]:
  """`function` of every item, in order, by threads, with a progress bar.

  Raises:
    ValueError: what the first item that fails raises; others are not begun.
  """
  pool = futures.ThreadPoolExecutor(min(_THREADS, max(len(items), 1)))
  try:
    done = pool.map(function, items)
    return list(tqdm(done, title, len(items), delay=2, disable=None))
  finally:
    pool.shutdown(cancel_futures=True)


class Held(Generic[BlockT]):
  """Blocks of records that threads share while they are in use.

  A block is loaded once, whoever asks first, and forgotten when all its
  records were taken, or when `capacity` others were asked for since.

  Args:
    load: reads a block.
    capacity: blocks held at most.
  """

  def __init__(self, load: Callable[[int], BlockT], capacity: int) -> None:
    self._load, self._capacity = load, capacity
    self._lock = threading.Lock()
    self._blocks: collections.OrderedDict[int, futures.Future[BlockT]] = (
      collections.OrderedDict()
    )
    self._taken: collections.Counter[int] = collections.Counter()

  def __len__(self) -> int:
    return len(self._blocks)

  def take(self, block: int, records: int) -> BlockT:
    """A block, of which one record is taken.

    Args:
      block: its number.
      records: that it has; after so many it is forgotten.
    """
    with self._lock:
      found = self._blocks.get(block)
      mine = found is None
      if found is None:
        found = self._blocks[block] = futures.Future()
      self._blocks.move_to_end(block)
      self._taken[block] += 1
      if self._taken[block] >= records:
        self._forget(block)
      while len(self._blocks) > self._capacity:
        self._forget(next(iter(self._blocks)))
    if mine:
      self._fill(block, found)
    return found.result()

  def _fill(self, block: int, promise: futures.Future[BlockT]) -> None:
    try:
      promise.set_result(self._load(block))
    except BaseException as error:
      with self._lock:
        if self._blocks.get(block) is promise:
          self._forget(block)  # the next one tries again
      promise.set_exception(error)

  def _forget(self, block: int) -> None:
    self._blocks.pop(block, None)
    self._taken.pop(block, None)
