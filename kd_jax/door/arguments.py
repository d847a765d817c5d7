"""What people pass: paths and numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

_SEEDS = 2**32  # JAX's keys repeat after them


def text(name: str, value: str | os.PathLike[str]) -> str:
  """A path as text.

  Args:
    name: of the argument, for the error.
    value: what was passed.

  Raises:
    ValueError: it is neither text nor a path.
  """
  if isinstance(value, str):
    return value
  if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
    return os.fspath(value)
  raise ValueError(
    f"{name} is {value!r} ({type(value).__name__}); it must be text or a path"
  )


def plain(value: Any) -> Any:
  """NumPy's whole numbers as Python's, and everything else as it is."""
  return int(value) if isinstance(value, np.integer) else value


def count(name: str, value: int) -> int:
  """A number of things.

  Raises:
    ValueError: it is no positive whole number.
  """
  value = plain(value)
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(
      f"{name} is {value!r}; it must be a whole number of at least 1"
    )
  return value


def seed(value: int) -> int:
  """Of everything random.

  Raises:
    ValueError: it is no whole number from 0 to 2^32 - 1.
  """
  value = plain(value)
  if isinstance(value, bool) or not isinstance(value, int):
    kind = type(value).__name__
    raise ValueError(f"seed is {value!r} ({kind}); it must be of the type int")
  if not 0 <= value < _SEEDS:
    raise ValueError(
      f"seed is {value}; it must be at least 0 and less than {_SEEDS}"
    )
  return value


def outside(out: Path, images: str) -> None:
  """Whether a folder for results is no part of the images.

  Args:
    out: where to write.
    images: the folder that is read.

  Raises:
    ValueError: pictures of results would be taken for images.
  """
  read = Path(images).expanduser().resolve()
  if images and out.resolve().is_relative_to(read):
    raise ValueError(
      f"out is {out}, which lies in {images}: the pictures of the run would be "
      "taken for images. Choose a folder beside it"
    )


def folder(name: str, out: str) -> Path:
  """A folder to write to, which may not exist yet.

  Args:
    name: of the argument, for errors.
    out: the folder.

  Raises:
    ValueError: it cannot be one.
  """
  if not out:
    raise ValueError(f"{name} is empty; it must be a folder to write to")
  if "://" in out:
    raise ValueError(
      f"{name} is {out}; this command writes to folders of this machine. Runs "
      "in buckets are for 'python -m kd_jax.main': docs/storage.md"
    )
  target = Path(out).expanduser()
  above = target
  while not above.exists() and above != above.parent:
    above = above.parent
  if not above.is_dir():
    raise ValueError(f"{name} is {out}, and {above} is a file; choose a folder")
  if not os.access(above, os.W_OK | os.X_OK):
    raise ValueError(
      f"{name} is {out}, and {above} cannot be written; choose another folder"
    )
  return target


def file(name: str, out: str, formats: tuple[str, ...]) -> Path:
  """A file to write, whose folder is made.

  Args:
    name: of the argument, for errors.
    out: the file.
    formats: how it may end.

  Raises:
    ValueError: another extension, or a place that cannot be written.
  """
  path = Path(out).expanduser()
  if path.suffix not in formats or "://" in out:
    raise ValueError(
      f"{name} is {out}; it must be a file of this machine that ends with "
      f"{' or '.join(formats)}"
    )
  if path.is_dir():
    raise ValueError(f"{name} is {out}, which is a folder; name a file")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f"{path.parent} cannot be made ({error.strerror}); choose another {name}"
    ) from error
  if not os.access(path.parent, os.W_OK | os.X_OK):
    raise ValueError(f"{path.parent} cannot be written; choose another {name}")
  return path
