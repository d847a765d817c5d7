"""Whose a workdir in a bucket is: one command at a time writes to it.

A bucket has no locks, and does not notice that a process has died. So the
owner keeps a note there and changes it every few seconds. Whoever finds a note
watches it: a change means that the owner lives; none for as long as the note
says, that it is dead. Nobody's clock is compared with another's. Notes are
written on condition that nobody else has written since, which makes one of
several winners; on S3 servers that ignore conditions (If-None-Match), two
commands that start in the same instant may both go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorstore as ts
from absl import logging

from kd_jax.buckets import store

FILE = ".lock"
# Seconds of silence after which an owner is dead.
SECONDS = "KD_JAX_LEASE"
_DEFAULT = 60.0
_PART = 6  # changes in that time


class Lost(Exception):  # noqa: N818 (an answer, no error)
  """Another command owns the place: `args[0]` is its note."""


def confirm() -> None:
  """Asks, after a silence, whether what this process owns is still its own.

  For whoever is about to write: in a process that was stopped any thread may be
  the first one to go on. If another command owns a place, this process ends.
  """
  for lease in list(_OWNED):
    lease.confirm()


@contextlib.contextmanager
def held(url: str, note: Mapping[str, Any]) -> Iterator[None]:
  """Owns a place until the block ends.

  A process that finds another owner in its place, after it was stopped or cut
  off for long, ends at once: nothing that it writes would be wanted.

  Args:
    url: of the place.
    note: about this process, for others to read.

  Raises:
    Lost: another command owns it; nothing has been touched.
    ValueError: the bucket cannot be read or written.
  """
  lease = _Lease(url, {**note, "token": secrets.token_hex(8)})
  lease.take()
  _OWNED.append(lease)
  stop = threading.Event()
  thread = threading.Thread(target=lease.keep, args=(stop,), daemon=True)
  thread.start()
  stale = False
  try:
    yield
  except BaseException as error:
    # Of several processes others may still write; the note goes stale.
    stale = lease.shared and isinstance(error, (ValueError, RuntimeError))
    raise
  finally:
    stop.set()
    _OWNED.remove(lease)
    if not stale:
      _quietly(lease, thread)


def _quietly(lease: _Lease, thread: threading.Thread) -> None:
  thread.join()
  with contextlib.suppress(store.BucketError):
    lease.drop()


class _Lease:
  """A note, and what the bucket calls its newest version."""

  def __init__(self, url: str, note: Mapping[str, Any]) -> None:
    self._url, self._changes = url, 0
    self._seconds = _seconds()
    self._note = {**note, "seconds": self._seconds}
    self._generation = b""
    self._renewed = time.monotonic()
    self._lock = threading.Lock()
    self.shared = note.get("processes", 1) > 1

  def take(self) -> None:
    """Waits until the owner, if there is one, is known to live or dead."""
    look = store.folder(self._url, first_look=True)
    # A bucket that does not exist says so to nothing else.
    store.result(look.list(ts.KvStore.KeyRange(FILE, FILE + "/")), self._url)
    found = store.result(look.read(FILE), self._url)
    if found.state == "value":
      found = self._watched(found)
    if not self._written(found.stamp.generation, first_look=True):
      raise Lost(_note(store.read(self._url, FILE)))

  def _watched(self, found: Any) -> Any:
    """The note, or the lack of one, when it is clear that nobody is there."""
    note, start = _note(found.value), time.monotonic()
    seconds = float(note.get("seconds", _DEFAULT))
    logging.warning(
      "%s was in use by process %s on %s: waiting up to %.0f s for a sign of "
      "life",
      self._url,
      note.get("pid"),
      note.get("host"),
      seconds,
    )
    where = store.folder(self._url)
    while time.monotonic() - start < seconds:
      time.sleep(min(1.0, seconds / _PART / 2))
      now = store.result(where.read(FILE), self._url)
      if now.state != "value":
        return now
      if now.stamp.generation != found.stamp.generation:
        raise Lost(_note(now.value))
    return found

  def _written(self, known: bytes, *, first_look: bool = False) -> bool:
    """Changes the note unless it is no longer the one that is known."""
    self._changes += 1
    start = time.monotonic()
    text = json.dumps({**self._note, "changes": self._changes}).encode()
    where = store.folder(self._url, first_look=first_look)
    done = store.result(where.write(FILE, text, if_equal=known), self._url)
    if not done.generation:
      # A repeated request finds what its first try has written.
      now = store.result(where.read(FILE), self._url)
      if bytes(now.value) != text:
        return False
      done = now.stamp
    self._generation, self._renewed = bytes(done.generation), start
    return True

  def keep(self, stop: threading.Event) -> None:
    """Changes the note until the event."""
    while not stop.wait(self._seconds / _PART):
      with self._lock:
        self._renew()

  def confirm(self) -> None:
    """Changes the note if that has not been done for long."""
    with self._lock:
      if time.monotonic() - self._renewed > self._seconds / 2:
        self._renew()

  def _renew(self) -> None:
    try:
      if not self._written(self._generation):
        _end(self._url, _note(store.read(self._url, FILE)))
    except store.BucketError as error:
      logging.warning("the note of ownership is not renewed: %s", error)

  def drop(self) -> None:
    """Takes the note away, if it is still this one."""
    where = store.folder(self._url, first_look=True)
    job = where.write(FILE, None, if_equal=self._generation)
    store.result(job, self._url)


_OWNED: list[_Lease] = []
"""Of this process."""


def _seconds() -> float:
  text = os.environ.get(SECONDS) or str(_DEFAULT)
  try:
    found = float(text)
  except ValueError:
    found = 0.0
  if not found >= 1:
    raise ValueError(
      f"{SECONDS} is {text!r}; it must be a number of seconds, at least 1, "
      "after which a silent owner of a workdir is dead"
    )
  return found


def _note(text: bytes | None) -> dict[str, Any]:
  try:
    return dict(json.loads(text or b"{}"))
  except (ValueError, TypeError):
    return {}


def _end(url: str, owner: Mapping[str, Any]) -> None:
  who = f"process {owner.get('pid')} on {owner.get('host')}"
  print(
    f"error: {url} was taken over by {who}, because this process gave no sign "
    "of life for too long. Nothing is lost: the other one goes on.",
    file=sys.stderr,
    flush=True,
  )
  os._exit(1)
