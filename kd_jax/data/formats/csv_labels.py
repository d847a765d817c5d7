"""Labels of a tree of files from a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from kd_jax.data.formats.folder_listing import Index

if TYPE_CHECKING:
  from _csv import Reader

_COLUMNS = ("path", "label")
_SHOWN = 3


def read(
  file: str, directory: str, listing: Index
) -> tuple[tuple[str, ...], Int32[np.ndarray, " n"]]:
  """Reads labels of all files of a listing.

  Args:
    file: a CSV file whose header names the columns path and label; further
      columns are ignored. Paths are absolute or relative to `directory`.
    directory: where the files are.
    listing: of `directory`.

  Returns:
    Class names, sorted (as numbers if all are integers), and the position of
    every file's class in them.

  Raises:
    ValueError: no such file, it is no such CSV file, it does not name each
      file once, or a label is empty.
  """
  rows = _rows(file, directory)
  names = _sorted(set(rows.values()))
  numbers = {name: number for number, name in enumerate(names)}
  labels = np.full(len(listing), -1, np.int32)
  for row, (path, _) in enumerate(listing.items(range(len(listing)))):
    labels[row] = numbers.get(rows.pop(path, ""), -1)
  here = f"dir={directory!r}"
  if rows:
    raise ValueError(
      f"csv={file!r} names {len(rows)} files that are not in {here}, such as "
      f"{_some(rows)}; that holds {listing.path(0)!r}, for instance. Remove "
      "these lines, or write paths relative to dir."
    )
  nameless = np.flatnonzero(labels < 0)
  if nameless.size:
    some = [listing.path(row) for row in nameless[:_SHOWN]]
    raise ValueError(
      f"csv={file!r} does not name {nameless.size} of {len(listing)} files in "
      f"{here}, such as {some}. Add them to it, or move them elsewhere."
    )
  return names, labels


def _rows(file: str, directory: str) -> dict[bytes, str]:
  """Relative path to label."""
  try:
    # Excel marks its files; names may hold any bytes, as on disk.
    with open(
      file, newline="", encoding="utf-8-sig", errors="surrogateescape"
    ) as lines:
      reader = csv.reader(lines)
      columns = _columns(file, next(reader, []))
      return _collect(file, directory, reader, columns)
  except OSError as error:
    raise ValueError(
      f"csv={file!r} cannot be read: {error.strerror}; set it to a CSV file "
      "with the columns path and label, or to ''"
    ) from error
  except csv.Error as error:
    raise ValueError(f"csv={file!r} is not a CSV file: {error}") from error


def _columns(file: str, header: Sequence[str]) -> list[int]:
  found = [name.strip() for name in header]
  if not set(_COLUMNS) <= set(found):
    raise ValueError(
      f"csv={file!r} has the columns {found}; its first line must name the "
      f"columns {' and '.join(_COLUMNS)}, with a comma between them"
    )
  return [found.index(name) for name in _COLUMNS]


def _collect(
  file: str, directory: str, reader: Reader, columns: Sequence[int]
) -> dict[bytes, str]:
  roots = [
    os.path.join(f(directory), "") for f in (os.path.abspath, os.path.realpath)
  ]
  rows: dict[bytes, str] = {}
  empty, twice = [], []
  for row in filter(None, reader):
    path, label = (row[c].strip() if c < len(row) else "" for c in columns)
    key = os.fsencode(_relative(path, roots))
    if not path or not label:
      empty.append(reader.line_num)
    if key in rows:
      twice.append(path)
    rows[key] = label
  if empty:
    raise ValueError(
      f"csv={file!r} has {len(empty)} lines without a path or a label, such as "
      f"the lines {empty[:_SHOWN]}; complete or remove them"
    )
  if twice:
    raise ValueError(
      f"csv={file!r} names {len(twice)} files twice, such as {_some(twice)}; "
      "an image has one label"
    )
  return rows


def _relative(path: str, roots: Sequence[str]) -> str:
  path = os.path.normpath(path)
  for root in roots:
    if path.startswith(root):
      return path[len(root) :]
  return path


def _sorted(names: set[str]) -> tuple[str, ...]:
  try:
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  except ValueError:
    return tuple(sorted(names))


def _some(paths: Iterable[bytes | str]) -> list[str]:
  return [os.fsdecode(path) for path in list(paths)[:_SHOWN]]
