"""Writes that a full disk may refuse, and the one line that says so."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left, quota used up, larger than files may be here."""

# How TensorStore and safetensors, which are no Python, spell `OSError.errno`.
_CODE = re.compile(r"os_error_code='(\d+)'|\(os error (\d+)\)")
# NumPy has forgotten why; ArrayRecord has no number.
_WORDS = re.compile(
  rf"^\d+ requested and \d+ written$|{os.strerror(errno.ENOSPC)}"
)
_FIXES = {
  errno.ENOSPC: "Make room there",
  errno.EDQUOT: "Delete files of yours there, or have the quota raised",
  errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
}
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class FullError(ValueError):
  """A full disk, in one line."""


def write(path: Path, data: bytes) -> None:
  """Writes a file that is either whole or not there.

  Raises:
    FullError: the disk is full.
    OSError: it cannot be written for another reason.
  """
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  with writing(path.name, path.parent, len(data)), removed(temporary):
    temporary.write_bytes(data)
    os.replace(temporary, path)


@contextlib.contextmanager
def writing(what: str, folder: Path | str, needed: int = 0) -> Iterator[None]:
  """Makes a full disk a ValueError of one line; other errors pass.

  Args:
    what: is written, for people: 'report.html'.
    folder: where to.
    needed: its bytes, if known.

  Raises:
    FullError: the disk is full.
  """
  try:
    yield
  except FullError:
    raise
  except Exception as error:  # Each library has its own kind.
    if code(error) not in FULL:
      raise
    raise FullError(
      f"{what} cannot be written to {folder} ({reason(error, folder, needed)})."
      f" {fix(error)}"
    ) from error


@contextlib.contextmanager
def removed(temporary: Path) -> Iterator[None]:
  """Leaves no half of a file behind, which would fill the disk further."""
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def code(error: BaseException) -> int | None:
  """The `errno` of an error, also where its type has none; else None."""
  if isinstance(error, OSError) and error.errno:
    return error.errno
  found = _CODE.search(str(error))
  if found:
    return int(found[1] or found[2])
  return errno.ENOSPC if _WORDS.search(str(error)) else None


def reason(error: BaseException, folder: Path | str, needed: int = 0) -> str:
  """'No space left on device: it needs at least 1.2 MB, and 0 kB are free'.

  Args:
    error: one that has a `code`.
    folder: that was written to, or is not there yet; or a URL.
    needed: bytes; 0 where nobody knows.
  """
  text = os.strerror(code(error) or 0)
  free = None if "://" in str(folder) else _free(Path(folder))
  parts = [f"it needs at least {size(needed)}"] if needed else []
  parts += [f"{size(free)} are free"] if free is not None else []
  return f"{text}: {', and '.join(parts)}" if parts else text


def fix(error: BaseException) -> str:
  """What to do about a full disk."""
  advice = _FIXES.get(code(error) or 0, "Make room there")
  return f"{advice}, then run the same command again."


def size(number: int) -> str:
  """Bytes as people read them: 1.2 MB."""
  unit, name = next((u for u in _UNITS if number >= u[0]), _UNITS[-1])
  return f"{number / unit:.3g} {name}"


def _free(folder: Path) -> int | None:
  """Bytes that are free where the folder is or would be."""
  for place in (folder, *folder.absolute().parents):
    with contextlib.suppress(OSError):
      return shutil.disk_usage(place).free
  return None
