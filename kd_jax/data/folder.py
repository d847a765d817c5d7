"""A tree of image files; class names are its first directories, if any."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import numpy as np

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
    per_class: keep so many files of every class, drawn with `seed`, before
      the split is sliced; 0 keeps all. KDEP's 10 % of ImageNet is 128.
    seed: of the draw.

  Raises:
    ValueError: no such directory, no image below it, a bad split, or
      `per_class` where there are no classes or too few files.
  """

  root: str
  split: str = "all"
  labels: bool = True
  per_class: int = 0
  seed: int = 0

  def __post_init__(self):
    _ = self._paths

  @functools.cached_property
  def _paths(self) -> tuple[str, ...]:
    kept = self._tree
    if self.per_class:
      kept = _draw(self.root, kept, self.per_class, self.seed)
    _, start, stop = splits.parse(self.split, {"all": len(kept)})
    return kept[start:stop]

  @functools.cached_property
  def _tree(self) -> tuple[str, ...]:
    return _find(self.root)

  @functools.cached_property
  def class_names(self) -> tuple[str, ...]:
    """Names of the labels, of the whole tree; empty if it has none."""
    return _classes(self._tree) if self.labels else ()

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


def _classes(tree: tuple[str, ...]) -> tuple[str, ...]:
  first = {path.partition("/")[0] for path in tree}
  nested = all("/" in path for path in tree)
  return tuple(sorted(first)) if nested and len(first) > 1 else ()


def _draw(
  root: str, tree: tuple[str, ...], count: int, seed: int
) -> tuple[str, ...]:
  """`count` files of every class, in the order of the tree."""
  groups: dict[str, list[str]] = {name: [] for name in _classes(tree)}
  if not groups:
    raise ValueError(
      f"per_class={count} needs classes, and root={root!r} has none: its "
      "files must lie in two or more directories, one per class"
    )
  for path in tree:
    groups[path.partition("/")[0]].append(path)
  small = [name for name, files in groups.items() if len(files) < count]
  if small:
    raise ValueError(
      f"per_class={count} is more than {len(small)} classes of {root!r} "
      f"have, such as {small[0]!r} with {len(groups[small[0]])} files"
    )
  rng = np.random.RandomState(seed)  # its stream is frozen, Generator's not
  drawn = (
    files[i]
    for files in groups.values()
    for i in rng.permutation(len(files))[:count]
  )
  return tuple(sorted(drawn))


def _find(root: str) -> tuple[str, ...]:
  if not os.path.isdir(root):
    raise ValueError(
      f"root={root!r} is not a directory; set --config.data.root=DIR to one "
      "that holds the images, "
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
