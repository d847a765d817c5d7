"""Parts of files on a disk or in a bucket.

What has :// in it goes through fsspec: s3:// needs the package s3fs, gs:// the
package gcsfs. Threads and processes may share everything here.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
  import fsspec
  from _typeshed import WriteableBuffer

_WAITS = (0.2, 1.0, 3.0, 10.0)  # seconds before trying again
_FINAL = (
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
)
_MARKS = ("ETag", "etag", "generation", "mtime", "LastModified", "created")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


class LostError(ValueError):
  """A file that cannot be read, which is no fault of a record in it."""


@dataclasses.dataclass(frozen=True)
class File:
  """A file as it was when it was listed.

  Attributes:
    path: where it is.
    size: bytes.
    mark: changes when its contents do: time of modification, or ETag.
  """

  path: str
  size: int
  mark: str

  @property
  def name(self) -> str:
    """The last part of its path."""
    return self.path.rpartition("/")[2]


def is_remote(path: str) -> bool:
  """Whether a path is an address such as gs://bucket/file."""
  return "://" in path


def filesystem(url: str) -> fsspec.AbstractFileSystem:
  """What reads addresses like this one; this thread's and process's own.

  Raises:
    ValueError: the package for it is missing, or nothing reads such a one.
  """
  import fsspec

  kind = url.partition("://")[0]
  try:
    return fsspec.core.url_to_fs(url)[0]
  except ImportError as error:
    package = _PACKAGES.get(kind, f"that fsspec names: {error}")
    raise ValueError(
      f"{url!r} needs the package {package}; install it (pip install "
      f"{_PACKAGES.get(kind, '...')})"
    ) from error
  except ValueError as error:
    raise ValueError(
      f"{url!r}: nothing reads {kind}://; write s3://, gs:// or a path"
    ) from error


def read(file: File, start: int, stop: int) -> bytes:
  """The bytes from `start` up to `stop`.

  Raises:
    LostError: the file is gone, changed its size, or cannot be read.
  """
  try:
    data = (_fetch if is_remote(file.path) else _pread)(file, start, stop)
  except FileNotFoundError as error:
    raise LostError(
      f"{file.path}: gone since it was listed. Put it back, or start again."
    ) from error
  except OSError as error:
    raise LostError(
      f"{file.path}: cannot be read: {error.strerror or error}"
    ) from error
  if len(data) != stop - start:
    raise LostError(
      f"{file.path}: it changed since it was listed, or is damaged: {len(data)}"
      f" of {stop - start} bytes are there. Start again."
    )
  return data


def _pread(file: File, start: int, stop: int) -> bytes:
  # Not kept open: there may be more files than a process may open.
  with open(file.path, "rb", buffering=0) as opened:
    size = os.fstat(opened.fileno()).st_size
    if size != file.size:
      raise LostError(
        f"{file.path}: it changed since it was listed, from {file.size} to "
        f"{size} bytes. Start again."
      )
    return os.pread(opened.fileno(), stop - start, start)


def _fetch(file: File, start: int, stop: int) -> bytes:
  if start == stop:
    return b""  # of the range 5 to 4 some servers send all
  return retried(
    lambda: filesystem(file.path).cat_file(file.path, start=start, end=stop)
  )


def retried(call: Any) -> Any:
  """`call()`, again after a while where the network or a server fails.

  Raises:
    OSError: what it raised last.
  """
  for wait in (*_WAITS, None):
    try:
      return call()
    except _FINAL:
      raise
    except Exception as error:  # Each library has its own kind.
      if wait is None:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
      time.sleep(wait)
  raise AssertionError


def marked(path: str, info: Mapping[str, Any]) -> File:
  """A `File` of what fsspec says about it."""
  mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
  return File(path, int(info["size"]), mark)


def opened(file: File, ahead: int) -> BinaryIO:
  """A file to seek and read in.

  Args:
    file: to open.
    ahead: see `Reader`; on a disk Python's own buffer does.

  Raises:
    LostError: it is gone, changed its size, or cannot be read.
  """
  if is_remote(file.path):
    return cast(BinaryIO, Reader(file, ahead))
  read(file, 0, min(file.size, 1))
  return open(file.path, "rb")  # noqa: SIM115 - the caller closes it


class Reader(io.RawIOBase):
  """A file for libraries that want one to seek in.

  Args:
    file: to read.
    ahead: so many bytes are fetched at least, and kept; for small reads that
      go forward in a bucket.
  """

  def __init__(self, file: File, ahead: int = 0) -> None:
    self._file, self._ahead = file, ahead
    self._at, self._start, self._held = 0, 0, b""

  def readable(self) -> bool:
    """True."""
    return True

  def seekable(self) -> bool:
    """True."""
    return True

  def tell(self) -> int:
    """Where the next read begins."""
    return self._at

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    """Moves to a place."""
    origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
    self._at = origin.get(whence, self._file.size) + offset
    return self._at

  def readinto(self, buffer: WriteableBuffer) -> int:
    """Fills a buffer, except at the end of the file."""
    space = memoryview(buffer).cast("B")
    stop = min(self._at + len(space), self._file.size)
    count = max(stop - self._at, 0)
    if count:
      space[:count] = self._bytes(self._at, stop)
    self._at += count
    return count

  def _bytes(self, start: int, stop: int) -> bytes:
    end = self._start + len(self._held)
    if not self._start <= start <= stop <= end:
      last = min(max(stop, start + self._ahead), self._file.size)
      self._start, self._held = start, read(self._file, start, last)
    return self._held[start - self._start : stop - self._start]
