"""From what a config says to the files that it means."""

from __future__ import annotations

import collections
import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kd_jax.data.shards import files
from kd_jax.data.shards.files import File

if TYPE_CHECKING:
  import fsspec

_RANGE = re.compile(r"(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(?:\.\.-?(\d+))?")
_MOST = 1_000_000
_SHOWN = 3


def expand(pattern: str) -> list[str]:
  """What a shell makes of braces: 'a{08..10}' is a08, a09 and a10.

  Args:
    pattern: with {first..last}, {first..last..step} and {a,b}, also nested.

  Raises:
    ValueError: a brace is not closed, or there are more than a million names.
  """
  found = list(_expand(pattern, pattern))
  if len(found) > _MOST:
    raise ValueError(f"{pattern!r} means {len(found)} files; at most {_MOST}")
  return found


def find(
  patterns: Sequence[str], field: str, endings: Sequence[str]
) -> list[File]:
  """The files of patterns, in their order; of a directory or glob, sorted.

  Args:
    patterns: files, directories, globs with * and ?, names with braces; paths
      or addresses such as s3://bucket/a-{000..127}.tar.
    field: what a config calls them.
    endings: of the names that count in a directory, such as '.tar'.

  Raises:
    ValueError: nothing there, a file is missing, or a file is named twice.
  """
  if not all(patterns) or not patterns:
    raise ValueError(
      f"{field}={tuple(patterns)}: no file is named; set --config.data.{field}"
      " to files, a directory or a pattern such as "
      f"'DIR/a-{{000..127}}{endings[0]}'"
    )
  names = [name for pattern in patterns for name in expand(pattern)]
  remote = {files.is_remote(name) for name in names}
  if remote == {True, False}:
    raise ValueError(f"{field} mixes paths and addresses; name one kind only")
  list_all = _remote if remote == {True} else _local
  found = list_all(names, field, endings)
  if not found:
    raise ValueError(
      f"{field}={_some(list(patterns))}: there is no file *{endings[0]}; set "
      f"--config.data.{field} to where they are"
    )
  paths = [file.path for file in found]
  if len(set(paths)) < len(paths):
    counts = collections.Counter(paths)
    twice = [path for path, count in counts.items() if count > 1]
    raise ValueError(
      f"{field} names {len(twice)} files twice, such as {_some(twice)}; their "
      "records would repeat"
    )
  return found


def _expand(text: str, whole: str) -> Iterator[str]:
  start = text.find("{")
  if start < 0:
    if "}" in text:
      raise ValueError(_unbalanced(whole))
    yield text
    return
  head, parts, rest = _split(text, start, whole)
  match = _RANGE.fullmatch(parts[0]) if len(parts) == 1 else None
  if match:
    first, last, step = match.groups()
    choices = _numbers(first, last, step, whole)
  elif len(parts) == 1:
    choices = [f"{{{inner}}}" for inner in _expand(parts[0], whole)]
  else:
    choices = [inner for part in parts for inner in _expand(part, whole)]
  ends = list(_expand(rest, whole))
  yield from (head + choice + end for choice in choices for end in ends)


def _split(text: str, start: int, whole: str) -> tuple[str, list[str], str]:
  """(before the brace, its parts, after it)."""
  depth, parts, last = 0, [], start + 1
  for at in range(start, len(text)):
    depth += {"{": 1, "}": -1}.get(text[at], 0)
    if text[at] == "," and depth == 1 or not depth:
      parts.append(text[last:at])
      last = at + 1
    if not depth:
      return text[:start], parts, text[last:]
  raise ValueError(_unbalanced(whole))


def _numbers(first: str, last: str, step: str | None, whole: str) -> list[str]:
  if first.isalpha() != last.isalpha():
    raise ValueError(f"{whole!r}: {first}..{last} goes from letter to number")
  ends = [ord(x) if x.isalpha() else int(x) for x in (first, last)]
  stride = int(step or 1) or 1
  forward = ends[0] <= ends[1]
  found = range(ends[0], ends[1] + (1 if forward else -1), stride)
  if not forward:
    found = range(ends[0], ends[1] - 1, -stride)
  if len(found) > _MOST:
    raise ValueError(f"{whole!r} means {len(found)} files; at most {_MOST}")
  if first.isalpha():
    return list(map(chr, found))
  padded = any(re.fullmatch(r"-?0\d+", end) for end in (first, last))
  width = max(len(first), len(last)) if padded else 0
  return [f"{number:0{width}d}" for number in found]


def _unbalanced(text: str) -> str:
  return f"{text!r}: a brace is not closed; write names like a-{{000..127}}"


def _local(
  names: Sequence[str], field: str, endings: Sequence[str]
) -> list[File]:
  paths: list[str] = []
  for name in map(os.path.expanduser, names):
    if os.path.isdir(name):
      paths += sorted(
        found
        for found in glob.iglob(f"{glob.escape(name)}/**", recursive=True)
        if found.endswith(tuple(endings))
      )
    elif glob.has_magic(name) and not os.path.exists(name):
      paths += sorted(glob.glob(name, recursive=True))
    else:
      paths.append(name)
  found, missing = [], []
  for path in paths:
    try:
      status = os.stat(path)
    except OSError:
      missing.append(path)
      continue
    found.append(File(path, status.st_size, str(status.st_mtime_ns)))
  _check_missing(missing, len(paths), field)
  return found


def _remote(
  names: Sequence[str], field: str, endings: Sequence[str]
) -> list[File]:
  system, ends = files.filesystem(names[0]), tuple(endings)
  system.invalidate_cache()
  found, missing = [], []
  for name in names:
    path = name.rstrip("/")
    if glob.has_magic(path):
      found += _listed(system, path).values()
    elif not path.endswith(ends):
      every = _listed(system, f"{path}/**")
      inside = [every[key] for key in every if key.endswith(ends)]
      found += inside
      missing += [] if inside else [name]
    else:
      # Of all names in a folder at once: a request per file takes minutes.
      file = _listed(system, f"{path.rpartition('/')[0]}/*").get(path)
      found += [file] if file else []
      missing += [] if file else [name]
  _check_missing(missing, len(names), field)
  return found


def _listed(system: fsspec.AbstractFileSystem, pattern: str) -> dict[str, File]:
  """Address to file, sorted; fsspec remembers folders that it listed."""
  kind = pattern.partition("://")[0]
  try:
    infos = files.retried(lambda: system.glob(pattern, detail=True))
  except OSError as error:
    raise ValueError(
      f"{pattern} cannot be listed: {error.strerror or error}; look at the "
      "address and at your credentials"
    ) from error
  return {
    f"{kind}://{path}": files.marked(f"{kind}://{path}", info)
    for path, info in sorted(infos.items())
    if info["type"] == "file"
  }


def _check_missing(missing: Sequence[str], count: int, field: str) -> None:
  if missing:
    raise ValueError(
      f"{field}: {len(missing)} of {count} files are not there, such as "
      f"{_some(missing)}; put them there, or set --config.data.{field} to "
      "those that are"
    )


def _some(names: Sequence[str]) -> list[str]:
  return list(names[:_SHOWN])
