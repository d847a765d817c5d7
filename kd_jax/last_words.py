"""One line when another process is lost, where JAX writes twenty.

JAX's coordination service notices that a process is gone, and ends all others
from C++: it writes a report with a stack trace to descriptor 2 and aborts, so
that no `except` sees it. From `watch` on that descriptor is a pipe. What comes
out of it is passed on as it is, but for that report, which becomes one line and
status 3. The aborting thread waits meanwhile: `sleep` is its signal handler.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import threading

LOST = 3
# Seconds without another word after which a report is at its end.
SILENCE = 0.3
_REPORT = re.compile(rb"^F\d{4} [^\n]*JAX distributed service", re.M)
# What comes before it; only held back for a moment.
_NOTICE = re.compile(
  rb"^[EWF]\d{4} [^\n]*(coordination_service|preemption_sync|client\.h)", re.M
)
_ends = threading.Lock()


def watch(patience: int) -> None:
  """From now on a lost process ends this one with one line.

  Args:
    patience: seconds for which the processes wait for each other at the start,
      for the line that says so.
  """
  real = os.dup(2)
  ours, theirs = os.pipe()
  os.dup2(theirs, 2)
  os.close(theirs)
  sys.stderr = open(real, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
  libc = ctypes.CDLL(None)
  # The number of the signal, 6, is for how many seconds it sleeps; if nothing
  # has ended the process by then, the abort goes on.
  libc.signal(int(signal.SIGABRT), ctypes.cast(libc.sleep, ctypes.c_void_p))
  relay = threading.Thread(
    target=_relay, args=(ours, real, patience), daemon=True
  )
  relay.start()


def leave(message: str, status: int) -> None:
  """Says one thing and ends the process; whoever comes second is not heard."""
  _ends.acquire()
  # Whoever listened may be gone, which is no reason to stay.
  with contextlib.suppress(OSError):
    print(message, file=sys.stderr, flush=True)
  with contextlib.suppress(OSError):
    sys.stdout.flush()
  os._exit(status)


def line(report: str, patience: int) -> str:
  """What matters of a report of the coordination service, in one line."""
  _, _, told = report.partition("absl::Status: ")
  told, *_ = re.split(
    r"\n\s*\n|\nThe tasks have|\nRPC: |\*\*\*| \[type\.", told
  )
  told = " ".join(told.split())[:200]
  if "RegisterTask" in report:
    return (
      f"error: the other processes did not come within {patience} s ({told}). "
      "Start all of them with the same coordinator, which each must reach."
    )
  return f"error: another process was lost ({told})"


def _relay(source: int, target: int, patience: int) -> None:
  held = b""
  while True:
    waiting = SILENCE if held else None
    if select.select([source], [], [], waiting)[0]:
      chunk = os.read(source, 1 << 16)
      held += chunk
      if chunk and _NOTICE.search(held):
        continue
    elif _REPORT.search(held):
      before, *_ = _NOTICE.split(held)
      os.write(target, before)
      leave(line(held.decode(errors="replace"), patience), LOST)
    with contextlib.suppress(OSError):
      os.write(target, held)
    if not held:
      return
    held = b""
