"""TensorBoard event files, written where they are called from.

tensorboardX's own writer has a thread and a handler at exit, which print
tracebacks of their own when the disk is full.
"""

from __future__ import annotations

import contextlib
import socket
import time
import types
from collections.abc import Mapping
from pathlib import Path

_VERSION = "brain.Event:2"
_SECONDS = 30  # between two flushes, each of which waits for the disk


class EventFile:
  """One event file of a run.

  Args:
    folder: of the run.
    start_step: number of finished updates; viewers drop what older files have
      of later ones.

  Raises:
    OSError: the disk refuses; also later.
  """

  def __init__(self, folder: Path, start_step: int) -> None:
    from tensorboardX import record_writer

    self._proto = _messages()
    # The suffix keeps a run that resumes within a second from reusing a name.
    stamp = f"{time.time():.0f}.{socket.gethostname()}.{start_step}"
    path = folder / f"events.out.tfevents.{stamp}"
    self._file = record_writer.RecordWriter(str(path))
    first = start_step + 1 if start_step else 0
    start = self._proto.SessionLog(status=self._proto.SessionLog.START)
    with contextlib.ExitStack() as undo:
      undo.callback(self.close)
      self._add(file_version=_VERSION)
      self._add(step=first, session_log=start)
      self._flush()
      undo.pop_all()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends scalars of a step; viewers see them within half a minute."""
    from tensorboardX import summary

    for name, value in scalars.items():
      found = summary.scalar(name, value)
      self._add(step=step, summary=found)
    if time.monotonic() - self._flushed > _SECONDS:
      self._flush()

  def close(self) -> None:
    """Writes what is left and closes the file."""
    self._file.close()

  def _flush(self) -> None:
    self._file.flush()
    self._flushed = time.monotonic()

  def _add(self, **fields: object) -> None:
    event = self._proto.Event(wall_time=time.time(), **fields)
    self._file.write(event.SerializeToString())


def _messages() -> types.ModuleType:
  """Its classes are made when it is imported: type checkers see none."""
  from tensorboardX.proto import event_pb2

  return event_pb2
