"""SIGTERM and Ctrl-C ask a run to save and end; the second time they end it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

STOP = (signal.SIGTERM, signal.SIGINT)
# Seconds in which another signal is the same request: launchers pass on what
# the system has sent to everyone already.
ECHO = 1
_elsewhere: list[Callable[[], None]] = []  # runs in other threads


class Stopped(Exception):  # noqa: N818 (an orderly end, no error)
  """The run was asked to end; its state is saved."""


@contextlib.contextmanager
def heeded(ask: Callable[[], None]) -> Iterator[None]:
  """Calls `ask` at the first signal; a later one ends the process at once.

  Python hands signals to the main thread alone: another thread is asked while
  that is inside of a block of its own.
  """
  if threading.current_thread() is not threading.main_thread():
    _elsewhere.append(ask)
    try:
      yield
    finally:
      _elsewhere.remove(ask)
    return
  # What the shell has switched off for a background job stays so.
  found = {number: signal.getsignal(number) for number in STOP}
  old = {n: h for n, h in found.items() if h not in (signal.SIG_IGN, None)}
  asked: list[float] = []

  def restore() -> None:
    for number, handler in old.items():
      signal.signal(number, handler)

  def handle(number: int, _: object) -> None:
    asked.append(time.monotonic())
    if len(asked) == 1:
      for each in (ask, *_elsewhere):
        each()
    elif asked[-1] - asked[0] > ECHO:
      restore()
      signal.raise_signal(number)

  for number in old:
    signal.signal(number, handle)
  try:
    yield
  finally:
    restore()
