"""Several runs at a time, each in a thread of its own."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Generic, TypeVar

import jax

from kd_jax.train import signals

T = TypeVar("T")
_BLINK = 0.2  # seconds
drawing = threading.RLock()
"""Held by a thread that draws: Matplotlib draws one thing at a time."""


def results(
  jobs: Sequence[Callable[[], T]],
  at_once: int,
  needs: Sequence[Collection[int]] | None = None,
) -> list[T]:
  """What every job returns, in their order.

  A signal asks all that are under way to stop. After that, or once a job has
  failed, no other one begins.

  Args:
    jobs: what to run. The first one that waits for nothing begins first.
    at_once: so many run at a time.
    needs: of every job, the numbers of earlier ones that end before it begins.

  Raises:
    Stopped: SIGTERM or Ctrl-C; what was under way is saved.
    Exception: that of the first job that failed.
  """
  if at_once == 1 or len(jobs) < 2:
    return [job() for job in jobs]
  started = _Started(jobs, needs)
  with (
    signals.heeded(started.stop),
    concurrent.futures.ThreadPoolExecutor(at_once) as pool,
  ):
    while started.go_on(pool, at_once):
      pass
  return started.results()


class _Started(Generic[T]):
  """The jobs of `results`, and how far they are."""

  def __init__(
    self,
    jobs: Sequence[Callable[[], T]],
    needs: Sequence[Collection[int]] | None,
  ) -> None:
    self._jobs, self._needs = jobs, needs
    self._waiting = list(range(len(jobs)))
    self._under_way: set[int] = set()
    self._futures: dict[int, concurrent.futures.Future[T]] = {}
    self._stopped = False

  def stop(self) -> None:
    """No other job begins."""
    self._stopped = True

  def go_on(self, pool: concurrent.futures.Executor, at_once: int) -> bool:
    """Starts what may begin, and waits a little; whether there is more."""
    ended = self._futures.keys() - self._under_way
    ready = [] if self._stopped else _ready(self._waiting, ended, self._needs)
    for number in ready[: at_once - len(self._under_way)]:
      self._waiting.remove(number)
      self._under_way.add(number)
      self._futures[number] = pool.submit(self._jobs[number])
    # Python runs handlers of signals when this thread is awake.
    concurrent.futures.wait(
      [self._futures[number] for number in self._under_way],
      timeout=_BLINK,
      return_when=concurrent.futures.FIRST_COMPLETED,
    )
    done = {n for n in self._under_way if self._futures[n].done()}
    self._under_way -= done
    if any(self._futures[number].exception() for number in done):
      self.stop()
    return bool(self._under_way or (self._waiting and not self._stopped))

  def results(self) -> list[T]:
    """What they returned, or the exception of the first that failed."""
    found = [self._futures[n].result() for n in sorted(self._futures)]
    if self._waiting:
      raise signals.Stopped("stopped; the same command goes on from there")
    return found


def _ready(
  waiting: Sequence[int],
  ended: Collection[int],
  needs: Sequence[Collection[int]] | None,
) -> list[int]:
  """Those that may begin."""
  if needs is None:
    return list(waiting)
  return [n for n in waiting if all(need in ended for need in needs[n])]


def allowed(at_once: int, trackers: Sequence[str]) -> int:
  """How many may run at a time: one beside trackers and on several devices.

  Trackers follow one run, and devices that wait for each other must all do
  the same thing next.
  """
  return 1 if trackers or jax.device_count() > 1 else at_once
