"""Walks a tree of image files; no Python object per file is kept."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from array import array

import tqdm
from absl import logging

EXTENSIONS = (
  ".jpg",
  ".jpeg",
  ".png",
  ".webp",
  ".bmp",
  ".gif",
  ".tif",
  ".tiff",
)
_SUFFIXES = tuple(map(str.encode, EXTENSIONS))
# A directory that changed so shortly before it was listed, in ns, may change
# again within the resolution of its clock, unseen.
_RECENT = 2 * 10**9


class Listing:
  """The image files below a directory, sorted by path.

  Attributes:
    paths: their relative paths, one after the other, with slashes.
    ends: where each of them ends.
    sizes: bytes of every file; -1 where it could not be told.
    tops: position in `top_names`; -1 right in the directory.
    top_names: first directories of the files, in the order of the files.
    times: modification time of every directory, ns; -1 if it was just now.
  """

  def __init__(self) -> None:
    self.paths = bytearray()
    self.ends, self.sizes, self.tops = array("q"), array("q"), array("i")
    self.top_names: list[str] = []
    self.times: dict[str, int] = {}
    self._digest = hashlib.sha256()

  @property
  def nbytes(self) -> int:
    """Of the columns, as they are stored."""
    columns = (self.paths, self.ends, self.sizes, self.tops)
    return sum(memoryview(column).nbytes for column in columns)

  def add(self, path: bytes, size: int) -> None:
    """Appends a file."""
    top, slash, _ = path.partition(b"/")
    if slash and os.fsdecode(top) not in self.top_names[-1:]:
      self.top_names.append(os.fsdecode(top))
    self.tops.append(len(self.top_names) - 1 if slash else -1)
    self.paths += path
    self.ends.append(len(self.paths))
    self.sizes.append(size)
    self._digest.update(line(path, size))

  @property
  def fingerprint(self) -> str:
    """16 hex digits of the relative paths and sizes, in order."""
    return self._digest.hexdigest()[:16]


def line(path: bytes, size: int) -> bytes:
  """What a file adds to a fingerprint."""
  return b"%b\0%d\n" % (path, size)


def walk(directory: str) -> Listing:
  """Lists a tree.

  Names that start with a dot are skipped; links are followed, except to a
  directory that the link lies in.

  Raises:
    ValueError: no image below it, or a directory that cannot be listed.
  """
  root = os.path.join(os.fsencode(directory), b"")
  listing = Listing()
  # A directory ends in a slash, so that its files come where they sort.
  stack = [b""]
  with tqdm.tqdm(
    desc=f"listing {directory!r}", unit=" files", delay=2, disable=None
  ) as progress:
    while stack:
      path = stack.pop()
      if path and not path.endswith(b"/"):
        listing.add(path, _size(root + path))
        progress.update()
        continue
      # Before its files are read: what comes later is seen the next time.
      listing.times[os.fsdecode(path)] = _time(root + path)
      names = _names(root, path)
      stack += [path + name for name in sorted(names, reverse=True)]
  if not listing.ends:
    raise ValueError(
      f"dir={directory!r} holds no image; folder looks for "
      f"{', '.join(EXTENSIONS)} in it and below, in capitals too"
    )
  return listing


def _names(root: bytes, path: bytes) -> list[bytes]:
  """Images and directories right in `root/path`; the latter with a slash."""
  try:
    with os.scandir(root + path) as entries:
      names = [_name(root, path, entry) for entry in entries]
  except OSError as error:
    raise _unlistable(root + path, error) from error
  return [name for name in names if name]


def _name(root: bytes, path: bytes, entry: os.DirEntry[bytes]) -> bytes:
  """The name as `_names` has it; empty if it is passed over."""
  if entry.name.startswith(b"."):
    return b""
  if not _is_directory(entry):
    return entry.name if entry.name.lower().endswith(_SUFFIXES) else b""
  back = entry.is_symlink() and _leads_back(root, path, entry.name)
  return b"" if back else entry.name + b"/"


def _is_directory(entry: os.DirEntry[bytes]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def _leads_back(root: bytes, path: bytes, name: bytes) -> bool:
  """Whether a link to a directory would be followed for ever."""
  target = os.path.join(os.path.realpath(root + path + name), b"")
  parts = path.split(b"/")
  for count in range(len(parts)):
    above = os.path.realpath(root + b"/".join(parts[:count]))
    if os.path.join(above, b"").startswith(target):
      link = os.fsdecode(root + path + name)
      logging.warning("skipped %r: it links to a directory above it", link)
      return True
  return False


def _time(directory: bytes) -> int:
  """Modification time in ns; -1, which never holds, if it was just now."""
  try:
    changed = os.stat(directory).st_mtime_ns
  except OSError as error:
    raise _unlistable(directory, error) from error
  return -1 if abs(time.time_ns() - changed) < _RECENT else changed


def _size(path: bytes) -> int:
  try:
    state = os.stat(path)
  except OSError:
    return -1
  return state.st_size if stat.S_ISREG(state.st_mode) else -1


def _unlistable(directory: bytes, error: OSError) -> ValueError:
  return ValueError(
    f"cannot list {os.fsdecode(directory)!r}: {error.strerror}; allow it or "
    "move it"
  )
