"""Whose a workdir is: one command at a time writes to it.

The lock is that of the operating system, which takes it from a process that
ends, however it ends. The file stays, and counts for nothing without the lock.
Buckets have no locks; `buckets.lease` says what they have.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shlex
import socket
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import jax
from absl import logging

from kd_jax.buckets import lease, spool, store

FILE = ".lock"

# What flock says on file systems, mostly of networks, that know no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
# Locks of runs of several processes, of which this one may be the first done.
_KEPT: dict[Path, filelock.BaseFileLock] = {}
# Places in buckets that this process owns.
_LEASED: set[str] = set()


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
  """Owns a folder, that must exist, until the block or the process ends.

  With several processes it is the process: others may still be writing when
  the first leaves the block.

  Raises:
    ValueError: another command owns it; nothing has been touched.
    OSError: the lock cannot be written.
  """
  url = spool.address(workdir)
  if store.is_url(url):
    # The folders below go with a place that is owned.
    inside = any(url.startswith(f"{owned}/") for owned in _LEASED)
    with contextlib.nullcontext() if inside else _leased(url):
      yield
    return
  path = workdir.resolve() / FILE
  if path in _KEPT:
    yield
    return
  # A marker instead of a lock would outlive a killed process.
  lock = filelock.FileLock(
    path, timeout=0, fallback_to_soft=False, thread_local=False
  )
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock)
      path.write_text(json.dumps(_about_this_process()), encoding="utf-8")
    except filelock.Timeout as error:
      raise ValueError(_refusal(workdir, path)) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      logging.warning(
        "the file system of %s has no locks (%s), so nothing keeps a second "
        "command from writing there too: start only one at a time",
        workdir,
        error.strerror,
      )
    if jax.process_count() > 1:
      _KEPT[path] = lock
      stack.pop_all()
    yield


def taken(workdir: Path) -> bool:
  """Whether a command owns a folder of this machine right now."""
  path = workdir.resolve() / FILE
  if not path.exists():
    return False
  lock = filelock.FileLock(
    path, timeout=0, fallback_to_soft=False, thread_local=False
  )
  try:
    with lock:
      return False
  except filelock.Timeout:
    return True
  except OSError:  # A folder that cannot be written to, or knows no locks.
    return False


@contextlib.contextmanager
def _leased(url: str) -> Iterator[None]:
  """As `held`, in a bucket."""
  about = {**_about_this_process(), "processes": jax.process_count()}
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lease.held(url, about))
    except lease.Lost as error:
      raise ValueError(_said(url, error.args[0])) from error
    _LEASED.add(url)
    stack.callback(_LEASED.discard, url)
    yield


def _about_this_process() -> dict[str, str | int]:
  now = datetime.datetime.now().astimezone()
  return {
    "pid": os.getpid(),
    "host": socket.gethostname(),
    "since": now.isoformat(" ", "seconds"),
    "command": shlex.join(sys.orig_argv),
  }


def _refusal(workdir: Path, path: Path) -> str:
  """Who owns it, and what to do; the note may not be written yet."""
  try:
    owner = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    owner = None
  return _said(str(workdir), owner)


def _said(workdir: str, owner: Mapping[str, Any] | None) -> str:
  head = f"the workdir {workdir} is in use by"
  advice = "or give this one another --workdir"
  try:
    if owner is None:
      raise LookupError("no note")
    pid, host = owner["pid"], owner["host"]
    since = owner["since"]
    command = textwrap.shorten(owner["command"], 300, placeholder=" ...")
  except (LookupError, TypeError, AttributeError):
    return f"{head} another command. Wait for its end, {advice}."
  return (
    f"{head} process {pid} on {host}, since {since}: {command}. Wait for its "
    f"end, stop it there with 'kill {pid}', {advice}."
  )
