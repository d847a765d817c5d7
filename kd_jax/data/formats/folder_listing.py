"""The image files below a directory, listed once and shared by all processes.

A listing is a directory of memory-mapped arrays in the user's cache. It holds
for as long as the modification time of no directory of the tree changes, which
files that are added, removed or renamed do.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from kd_jax import disk
from kd_jax.data.formats import folder_walk as listing_lib

_ARRAYS = ("paths", "ends", "sizes", "tops")
_META, _TIMES = "index.json", "times.json"
_FILES = (*(f"{name}.npy" for name in _ARRAYS), _META, _TIMES)
_VERSION = 1
_KEPT = 4  # older listings of a tree may still be in use
_DAY = 86400 * 10**9
_CHUNK = 65536
# Where this process keeps listings whose cache cannot be written to.
_SPARE: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Index:
  """A stored listing; pickles as its place, so that workers share its pages.

  Attributes:
    place: the directory that holds it.
  """

  place: str

  @functools.cached_property
  def _meta(self) -> dict[str, Any]:
    return json.loads((Path(self.place) / _META).read_text("utf-8"))

  @functools.cached_property
  def _arrays(self) -> dict[str, np.ndarray]:
    place = Path(self.place)
    try:
      return {
        name: np.load(place / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
      }
    except OSError as error:
      raise ValueError(
        f"the listing {self.place} vanished while it was in use; start again"
      ) from error

  @property
  def sizes(self) -> np.ndarray:
    """(n,) int64, bytes of every file; -1 where it could not be told."""
    return self._arrays["sizes"]

  @property
  def tops(self) -> np.ndarray:
    """(n,) int32, position in `top_names`; -1 right in the directory."""
    return self._arrays["tops"]

  @property
  def top_names(self) -> list[str]:
    """First directories of the files, in the order of the files."""
    return self._meta["tops"]

  @property
  def fingerprint(self) -> str:
    """`digest` of all files, known without reading them."""
    return self._meta["fingerprint"]

  def __len__(self) -> int:
    return len(self._arrays["ends"])

  def path(self, row: int) -> str:
    """Path of a file, relative to the directory, with slashes."""
    ends = self._arrays["ends"]
    start = ends[row - 1] if row else 0
    return os.fsdecode(self._arrays["paths"][start : ends[row]].tobytes())

  def read(self, directory: str, row: int) -> bytes:
    """The contents of a file of `directory`, which this is a listing of.

    Raises:
      ValueError: it is gone, cannot be read, or changed since it was listed.
    """
    path, size = os.path.join(directory, self.path(row)), int(self.sizes[row])
    data = _read(path, known=size >= 0)
    if len(data) != size:
      raise ValueError(
        f"{path}: it changed since it was listed, from {size} to {len(data)} "
        "bytes. Touch its directory, or delete "
        f"{os.path.dirname(self.place)}, and start again."
      )
    return data

  def items(self, rows: range | np.ndarray) -> Iterator[tuple[bytes, int]]:
    """(path, size) of the files of `rows`, in that order."""
    paths, ends = self._arrays["paths"], self._arrays["ends"]
    for first in range(0, len(rows), _CHUNK):
      part = np.asarray(rows[first : first + _CHUNK])
      starts = np.where(part == 0, 0, ends[part - 1])
      columns = (starts, ends[part], self.sizes[part])
      for start, end, size in zip(*(c.tolist() for c in columns), strict=True):
        yield paths[start:end].tobytes(), size

  def digest(self, rows: range | np.ndarray) -> str:
    """16 hex digits of the relative paths and sizes of `rows`, in order."""
    digest = hashlib.sha256()
    for path, size in self.items(rows):
      digest.update(listing_lib.line(path, size))
    return digest.hexdigest()[:16]

  def __reduce__(self) -> tuple[type[Index], tuple[str]]:
    return Index, (self.place,)


def find(directory: str) -> Index:
  """The listing of `directory`, from the cache if nothing changed since.

  The cache is $KD_JAX_CACHE/index, or ~/.cache/kd_jax/index.

  Raises:
    ValueError: no such directory, no image below it, or a directory that
      cannot be listed.
  """
  if not os.path.isdir(directory):
    raise ValueError(
      f"dir={directory!r} is not a directory; set --config.data.dir=DIR to one "
      f"that holds the images, {', '.join(listing_lib.EXTENSIONS)}"
    )
  home = shelf(directory)
  for place in _places(home):
    if _holds(place, directory):
      return Index(place)
  listing = listing_lib.walk(directory)
  if home not in _SPARE:
    try:
      return Index(_store(home, listing))
    except OSError as error:
      _keep_for_now(home, error)
  with disk.writing("the list of images", _SPARE[home], listing.nbytes):
    return Index(_store(_SPARE[home], listing))


def _read(path: str, *, known: bool) -> bytes:
  """A whole file; `known` says that it was one when it was listed."""
  if not known and not os.path.isfile(path):
    what = "a link to nothing" if os.path.islink(path) else "not a file"
    raise ValueError(f"{path}: {what}. Remove or replace it.")
  try:
    with open(path, "rb") as file:
      return file.read()
  except FileNotFoundError as error:
    raise ValueError(
      f"{path}: gone since it was listed. Put it back, or start again."
    ) from error
  except OSError as error:
    raise ValueError(
      f"{path}: cannot be read, {error.strerror}. Allow it, or remove it."
    ) from error


def shelf(directory: str) -> str:
  """Where the cache keeps the listings of a directory."""
  cache = os.environ.get("KD_JAX_CACHE") or "~/.cache/kd_jax"
  real = os.fsencode(os.path.realpath(directory))
  key = hashlib.sha256(b"%d %b" % (_VERSION, real)).hexdigest()[:16]
  return os.path.join(os.path.expanduser(cache), "index", key)


def _keep_for_now(home: str, error: OSError) -> None:
  logging.warning(
    "the cache of listings cannot be written to: %s. The listing is lost when "
    "this process ends; set KD_JAX_CACHE to a directory of yours.",
    disk.reason(error, home) if disk.code(error) in disk.FULL else error,
  )
  _SPARE[home] = tempfile.mkdtemp(prefix="kd_jax_index_")
  atexit.register(shutil.rmtree, _SPARE[home], ignore_errors=True)


def _places(home: str) -> Iterator[str]:
  """Stored listings of a tree, the newest first."""
  for where in (home, *filter(None, [_SPARE.get(home)])):
    yield from (path for _, path in _newest(where) if not _is_hidden(path))


def _newest(home: str) -> list[tuple[int, str]]:
  """(modification time in ns, path) of what lies there."""
  try:
    with os.scandir(home) as entries:
      found = [(entry.stat().st_mtime_ns, entry.path) for entry in entries]
  except OSError:
    return []
  return sorted(found, reverse=True)


def _is_hidden(path: str) -> bool:
  return os.path.basename(path).startswith(".")


def _holds(place: str, directory: str) -> bool:
  """Whether a stored listing is whole and no directory changed since."""
  if not _is_whole(place):
    return False
  times = json.loads(Path(place, _TIMES).read_text("ascii"))
  root = os.path.join(os.fsencode(directory), b"")
  try:
    return all(
      os.stat(root + os.fsencode(path)).st_mtime_ns == time
      for path, time in times.items()
    )
  except OSError:
    return False


def _is_whole(place: str) -> bool:
  try:
    return os.path.basename(place) == _checksum(place)
  except OSError:
    return False


def _checksum(place: str) -> str:
  """Of the contents; a stored listing bears it as its name."""
  digest = hashlib.sha256()
  for name in _FILES:
    with open(os.path.join(place, name), "rb") as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()[:16]


def _store(home: str, listing: listing_lib.Listing) -> str:
  """Writes a listing; whoever reads meanwhile sees all of it or none."""
  hidden = os.path.join(home, "." + secrets.token_hex(8))
  os.makedirs(hidden)
  try:
    _save(listing, hidden)
    place = os.path.join(home, _checksum(hidden))
    if not _is_whole(place):
      shutil.rmtree(place, ignore_errors=True)
    _rename(hidden, place)
  finally:
    shutil.rmtree(hidden, ignore_errors=True)
  _prune(home)
  return place


def _save(listing: listing_lib.Listing, place: str) -> None:
  types = (np.uint8, np.int64, np.int64, np.int32)
  for name, dtype in zip(_ARRAYS, types, strict=True):
    column = np.frombuffer(getattr(listing, name), dtype)
    np.save(os.path.join(place, f"{name}.npy"), column)
  meta = {"tops": listing.top_names, "fingerprint": listing.fingerprint}
  Path(place, _META).write_text(json.dumps(meta), "ascii")
  Path(place, _TIMES).write_text(json.dumps(listing.times), "ascii")


def _rename(hidden: str, place: str) -> None:
  try:
    os.rename(hidden, place)
  except OSError:  # another process was faster
    if not _is_whole(place):
      raise


def _prune(home: str) -> None:
  found = _newest(home)
  listings = [path for _, path in found if not _is_hidden(path)]
  dead = time.time_ns() - _DAY  # left by processes that were killed
  orphans = [path for at, path in found if _is_hidden(path) and at < dead]
  for path in (*listings[_KEPT:], *orphans):
    shutil.rmtree(path, ignore_errors=True)
