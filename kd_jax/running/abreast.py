"""Several runs at a time, each in a thread of its own."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax

from kd_jax.train import signals

T = TypeVar("T")
_BLINK = 0.2  # seconds
drawing = threading.RLock()
"""Held by a thread that draws: Matplotlib draws one thing at a time."""


def results(jobs: Sequence[Callable[[], T]], at_once: int) -> list[T]:
  """What every job returns, in their order.

  A signal asks all that are under way to stop. After that, or once a job has
  failed, no other one begins.

  Args:
    jobs: that know nothing of each other.
    at_once: so many run at a time.

  Raises:
    Stopped: SIGTERM or Ctrl-C; what was under way is saved.
    Exception: that of the first job that failed.
  """
  if at_once == 1 or len(jobs) < 2:
    return [job() for job in jobs]
  ended: list[bool] = []

  def run(job: Callable[[], T]) -> T:
    if ended:
      raise signals.Stopped("stopped; the same command goes on from there")
    try:
      return job()
    except BaseException:
      ended.append(True)
      raise

  with (
    signals.heeded(lambda: ended.append(True)),
    concurrent.futures.ThreadPoolExecutor(at_once) as pool,
  ):
    futures = [pool.submit(run, job) for job in jobs]
    # Python runs handlers of signals when this thread is awake.
    while concurrent.futures.wait(futures, timeout=_BLINK).not_done:
      pass
    return [future.result() for future in futures]


def allowed(at_once: int, trackers: Sequence[str]) -> int:
  """How many may run at a time: one beside trackers and on several devices.

  Trackers follow one run, and devices that wait for each other must all do
  the same thing next.
  """
  return 1 if trackers or jax.device_count() > 1 else at_once
