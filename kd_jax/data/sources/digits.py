"""scikit-learn's handwritten digits: 1797 real 8x8 images, no download.

Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Int, UInt8

from kd_jax import interfaces
from kd_jax.data.formats import shipped
from kd_jax.data.sources import splits
from kd_jax.types import Record

_TEST_PER_CLASS = 36


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Digits as (8, 8, 3) uint8 RGB, classes in turn: prefixes are balanced.

  Attributes:
    split: 'all' (1797), 'train' (1437) or 'test' (360, 36 of each class), or
      a part of one, such as 'train[:500]'.
    labels: False hides the labels (-1) and makes `num_classes` 0.
    classes: keep these digits only, before the split is sliced, and number
      their labels from 0 in this order; () keeps all.

  Raises:
    ValueError: unknown or empty split, or classes that are no digits.
  """

  split: str = "all"
  labels: bool = True
  classes: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    object.__setattr__(self, "classes", tuple(self.classes))
    if len(set(self.classes) & set(range(10))) != len(self.classes):
      raise ValueError(
        f"classes={self.classes}; they must be different digits 0 to 9"
      )
    _ = self._rows

  @functools.cached_property
  def _rows(self) -> Int[np.ndarray, " n"]:
    labels = _load()[1]
    test = np.arange(len(labels)) < 10 * _TEST_PER_CLASS
    kept = np.isin(labels, self.classes or range(10))
    parts = {"all": kept, "test": kept & test, "train": kept & ~test}
    sizes = {name: int(part.sum()) for name, part in parts.items()}
    name, start, stop = splits.parse(self.split, sizes)
    return np.flatnonzero(parts[name])[start:stop]

  @interfaces.computed
  def class_names(self) -> tuple[str, ...]:
    """The digits kept; () where labels are hidden."""
    return tuple(map(str, self.classes or range(10))) if self.labels else ()

  @interfaces.computed
  def num_classes(self) -> int:
    """Number of digits kept, or 0 where labels are hidden."""
    return len(self.class_names)

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the images in order; labels play no part."""
    images = _load()[0][self._rows]
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]

  def describe(self, index: int) -> str:
    """What to call a record in an error message."""
    return f"digits[{self.split}] record {index}"

  def all_labels(self) -> list[int]:
    """The label of every record, in order; -1 where labels are hidden."""
    return [self._label(digit) for digit in _load()[1][self._rows].tolist()]

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    images, labels = _load()
    row = self._rows[index]
    image = np.repeat(images[row, :, :, None], 3, axis=-1)
    label = self._label(int(labels[row]))
    return {"image": image, "label": label, "id": index % len(self)}

  def _label(self, digit: int) -> int:
    if not self.labels:
      return -1
    return self.classes.index(digit) if self.classes else digit


@functools.lru_cache(maxsize=1)
def _load() -> tuple[UInt8[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
  """Images and labels; records take turns over classes, test ones first."""
  images, labels = shipped.digits()
  rank = np.empty(len(labels), np.int64)
  shuffle = np.random.RandomState(0)  # its stream is frozen, Generator's not
  for digit in range(10):
    rows = np.flatnonzero(labels == digit)
    rank[rows] = shuffle.permutation(len(rows))
  order = np.lexsort((labels, rank))
  pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
  return pixels[order], labels[order]
