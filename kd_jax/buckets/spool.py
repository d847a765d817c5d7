"""A workdir in a bucket, as a folder that is kept in step with it.

Object stores cannot append to a file, rename a folder or show half of one, all
of which a run wants. So it writes to a folder of its own, the spool, in the
temporary directory, and what has changed there is copied to the bucket: in the
background, before a checkpoint counts, and at the end. The bucket alone is
believed when a run goes on: the spool starts empty each time.

Files go up in the order in which they were last written, so that what says
that something is finished never comes before what it speaks of. Checkpoints
are no files of the spool: every process writes its part to the bucket itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from kd_jax import disk
from kd_jax.buckets import lease, store

SECONDS = 30  # between two copies in the background
_AT_ONCE = 16  # files that come down, and are in memory, together
_BANK = "bank.json"  # beside what is never looked at as a file


@dataclasses.dataclass(frozen=True)
class _Version:
  """Of a file that the bucket has: here, and what the bucket calls it."""

  here: tuple[int, ...]
  there: bytes


class _Mount:
  """A spool and its bucket."""

  def __init__(self, root: Path, url: str) -> None:
    self.root, self.url = root, url
    self._known: dict[str, _Version] = {}
    self._lock = threading.RLock()

  def push(self, *, first_look: bool = False) -> None:
    """Copies what has changed to the bucket."""
    with self._lock:
      for name, state in self._changed():
        with contextlib.suppress(FileNotFoundError):  # replaced just now
          data = (self.root / name).read_bytes()
          lease.confirm()
          there = store.write(self.url, name, data, first_look=first_look)
          self._known[name] = _Version(state, there)

  def _changed(self) -> list[tuple[str, tuple[int, ...]]]:
    """Files that the bucket lacks, the oldest first."""
    found = []
    for path in self.root.rglob("*"):
      name = path.relative_to(self.root).as_posix()
      if path.suffix == ".tmp" or path.name == ".lock" or not path.is_file():
        continue
      with contextlib.suppress(FileNotFoundError):
        state = _state(path)
        known = self._known.get(name)
        if known is None or known.here != state:
          found.append((name, state))
    return sorted(found, key=lambda each: each[1])

  def pull(self, below: str) -> None:
    """Copies what is new in the bucket to the spool."""
    with self._lock:
      self.push()
      found = _wanted(store.keys(store.join(self.url, below)))
      names = [f"{below}/{name}" if below else name for name in found]
      for start in range(0, len(names), _AT_ONCE):
        self._fetch(names[start : start + _AT_ONCE])

  def _fetch(self, names: list[str]) -> None:
    where, jobs = store.folder(self.url), {}
    for name in names:
      known = self._known.get(name)
      jobs[name] = where.read(name, if_not_equal=known.there if known else None)
    for name, job in jobs.items():
      found = store.result(job, self.url)
      if found.state == "value":
        self._take(name, bytes(found.value), bytes(found.stamp.generation))

  def _take(self, name: str, data: bytes, there: bytes) -> None:
    path = self.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, data)
    self._known[name] = _Version(_state(path), there)

  def keep(self, stop: threading.Event) -> None:
    """Copies now and then, until the event."""
    while not stop.wait(SECONDS):
      try:
        self.push()
      except store.BucketError as error:
        logging.warning("not copied yet: %s", error)
      except OSError:  # the folder has gone, and the run with it
        return


_MOUNTS: dict[Path, _Mount] = {}


@contextlib.contextmanager
def mounted(place: str | Path) -> Iterator[Path]:
  """A folder for `place`: itself, or the spool of a bucket.

  Raises:
    ValueError: it is a URL, but of no bucket.
  """
  if not store.is_url(place):
    yield Path(place)
    return
  url = str(place).rstrip("/")
  store.check(url)
  with tempfile.TemporaryDirectory(
    prefix="kd_jax-", ignore_cleanup_errors=True
  ) as home:
    root = Path(home).resolve() / url.rpartition("/")[2]
    root.mkdir()
    mount, stop = _Mount(root, url), threading.Event()
    thread = threading.Thread(target=mount.keep, args=(stop,), daemon=True)
    _MOUNTS[root] = mount
    thread.start()
    try:
      yield root
    finally:
      stop.set()
      thread.join(5)  # longer only if it waits for a bucket that is away
      del _MOUNTS[root]


def address(path: Path) -> str:
  """What people call a path: the URL of what lies in a spool."""
  found = _mount_of(path)
  return store.join(found[0].url, *found[1].parts) if found else str(path)


def keys(path: Path) -> list[str]:
  """All that the bucket has below a folder; [] for a folder of a disk."""
  return store.keys(address(path)) if _mount_of(path) else []


def pull(path: Path) -> None:
  """Brings the files of the bucket to a folder; nothing to do on a disk.

  Raises:
    ValueError: the bucket cannot be read.
  """
  found = _mount_of(path)
  if found:
    found[0].pull("/".join(found[1].parts))


def push(path: Path, *, first_look: bool = False) -> None:
  """Brings the files of a folder to the bucket; nothing to do on a disk.

  Args:
    path: of the folder.
    first_look: give up early.

  Raises:
    ValueError: the bucket cannot be written, after all retries.
  """
  found = _mount_of(path)
  if found:
    found[0].push(first_look=first_look)


def _mount_of(path: Path) -> tuple[_Mount, Path] | None:
  for root, mount in _MOUNTS.items():
    if path.is_relative_to(root):
      return mount, path.relative_to(root)
  return None


def _state(path: Path) -> tuple[int, ...]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size, found.st_ino


def _wanted(keys: list[str]) -> list[str]:
  """Files that a run may look at: no checkpoints, banks or event files."""
  banks = tuple(k.removesuffix(_BANK) for k in keys if k.endswith("/" + _BANK))
  return [
    key
    for key in keys
    if not {"checkpoints", ".lock"} & {*key.split("/")}
    and not key.rpartition("/")[2].startswith("events.out.")
    and not (banks and key.startswith(banks))
  ]
