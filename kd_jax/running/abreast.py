"""Several runs at a time, each in a thread of its own."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

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
  stopped: list[bool] = []
  waiting, under_way = list(range(len(jobs))), set[int]()
  futures: dict[int, concurrent.futures.Future[T]] = {}
  with (
    signals.heeded(lambda: stopped.append(True)),
    concurrent.futures.ThreadPoolExecutor(at_once) as pool,
  ):
    while under_way or (waiting and not stopped):
      ended = futures.keys() - under_way
      for number in _ready(waiting, ended, needs)[: at_once - len(under_way)]:
        if not stopped:
          waiting.remove(number)
          under_way.add(number)
          futures[number] = pool.submit(jobs[number])
      # Python runs handlers of signals when this thread is awake.
      concurrent.futures.wait(
        [futures[number] for number in under_way],
        timeout=_BLINK,
        return_when=concurrent.futures.FIRST_COMPLETED,
      )
      done = {number for number in under_way if futures[number].done()}
      under_way -= done
      stopped += [True for number in done if futures[number].exception()]
  found = [futures[number].result() for number in sorted(futures)]
  if waiting:
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
