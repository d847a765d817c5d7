"""A tree of image files; class names are its first directories, if any."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

from kd_jax.data import splits
from kd_jax.types import Record

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


@dataclasses.dataclass(frozen=True)
class Source:
  """Image files below `root`, sorted by path, as encoded bytes.

  There are labels if every file lies in one of two or more directories of
  `root`: root/cat/1.jpg, root/dog/a/b.png. Names that start with a dot are
  skipped, links are followed, capitals in extensions do not matter.

  Attributes:
    root: the directory.
    split: 'all', or a part of the sorted files such as 'all[:50%]'.
    labels: False hides the labels (-1) and makes `num_classes` 0.

  Raises:
    ValueError: no such directory, no image below it, or a bad split.
  """

  root: str
  split: str = "all"
  labels: bool = True

  def __post_init__(self):
    _ = self._paths

  @functools.cached_property
  def _paths(self) -> tuple[str, ...]:
    _, start, stop = splits.parse(self.split, {"all": len(self._tree)})
    return self._tree[start:stop]

  @functools.cached_property
  def _tree(self) -> tuple[str, ...]:
    return _find(self.root)

  @functools.cached_property
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels, of the whole tree; empty if it has none."""
    if not self.labels:
      return ()
    first = {path.partition("/")[0] for path in self._tree}
    nested = all("/" in path for path in self._tree)
    return tuple(sorted(first)) if nested and len(first) > 1 else ()

  @functools.cached_property
  def _labels(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.class_names)}

  @property
  def num_classes(self) -> int:
    """Number of first directories, or 0 where there are no labels."""
    return len(self.class_names)

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hex digits of the relative paths and sizes, in order."""
    digest = hashlib.sha256()
    for path in self._paths:
      size = os.path.getsize(os.path.join(self.root, path))
      digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]

  def describe(self, index: int) -> str:
    """The path of a record, for error messages."""
    return os.path.join(self.root, self._paths[index])

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> Record:
    label = self._labels.get(self._paths[index].partition("/")[0], -1)
    data = Path(self.describe(index)).read_bytes()
    return {"image": data, "label": label, "id": index % len(self)}


def _find(root: str) -> tuple[str, ...]:
  if not os.path.isdir(root):
    raise ValueError(
      f"root={root!r} is not a directory; folder looks below it for "
      f"{', '.join(EXTENSIONS)}"
    )
  found = []
  for place, folders, files in os.walk(root, onerror=_raise, followlinks=True):
    folders[:] = [name for name in folders if not name.startswith(".")]
    prefix = Path(os.path.relpath(place, root)).as_posix()
    prefix = "" if prefix == "." else prefix + "/"
    found += [prefix + name for name in files if _is_image(name)]
  if not found:
    raise ValueError(
      f"root={root!r} holds no image; folder looks for "
      f"{', '.join(EXTENSIONS)} in it and below, in capitals too"
    )
  return tuple(sorted(found))


def _is_image(name: str) -> bool:
  return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _raise(error: OSError) -> None:
  raise ValueError(
    f"cannot list {error.filename!r}: {error.strerror}; allow it or move it"
  ) from error
