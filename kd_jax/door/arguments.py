"""What people pass: paths and numbers."""

from __future__ import annotations

import os


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


def count(name: str, value: int) -> int:
  """A number of things.

  Raises:
    ValueError: it is no positive whole number.
  """
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(
      f"{name} is {value!r}; it must be a whole number of at least 1"
    )
  return value
