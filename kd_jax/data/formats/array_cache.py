"""Arrays that take long to find, kept in files that processes share."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kd_jax import disk


def table(
  kind: str, identity: str, build: Callable[[], np.ndarray]
) -> np.ndarray:
  """`build()`, kept as a .npy file and mapped into memory, read only.

  The files lie in $KD_JAX_CACHE, or in ~/.cache/kd_jax. They appear at once
  and whole, so that any number of processes may build the same one. A damaged
  file is built again.

  Args:
    kind: directory for what belongs together.
    identity: says all that the array depends on.
    build: called where there is no such file yet.

  Raises:
    ValueError: the file cannot be written.
  """
  root = Path(os.environ.get("KD_JAX_CACHE") or "~/.cache/kd_jax")
  name = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
  path = root.expanduser() / kind / f"{name[:16]}.npy"
  try:
    return np.load(path, mmap_mode="r")
  except (OSError, ValueError, EOFError):
    pass  # absent, out of reach, cut short or empty
  _check_writable(path.parent)
  _write(path, build())
  return np.load(path, mmap_mode="r")


def _check_writable(folder: Path) -> None:
  # Before the work of hours, not after it.
  try:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as error:
    raise ValueError(
      f"cannot write to {str(folder)!r}: {error.strerror}; set the environment "
      "variable KD_JAX_CACHE to a directory that can be written"
    ) from error


def _write(path: Path, array: np.ndarray) -> None:
  handle, name = tempfile.mkstemp(".part", path.stem, path.parent)
  with (
    disk.writing(path.name, path.parent, array.nbytes),
    disk.removed(Path(name)),
  ):
    with os.fdopen(handle, "wb") as file:
      np.save(file, array)
    os.replace(name, path)
