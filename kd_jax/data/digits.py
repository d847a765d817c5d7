"""scikit-learn's handwritten digits: 1797 real 8x8 images, no download.

Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Int, UInt8

from kd_jax.data import splits
from kd_jax.types import Record

_TEST_PER_CLASS = 36


@dataclasses.dataclass(frozen=True)
class Source:
  """Digits as (8, 8, 3) uint8 RGB, classes in turn: prefixes are balanced.

  Attributes:
    split: 'all' (1797), 'train' (1437) or 'test' (360, 36 of each class), or
      a part of one, such as 'train[:500]'.
    labels: False hides the labels (-1) and makes `num_classes` 0.

  Raises:
    ValueError: unknown or empty split.
  """

  split: str = "all"
  labels: bool = True

  def __post_init__(self):
    _ = self._range

  @functools.cached_property
  def _range(self) -> range:
    count = len(_load()[1])
    test = 10 * _TEST_PER_CLASS
    first = {"all": 0, "test": 0, "train": test}
    sizes = {"all": count, "test": test, "train": count - test}
    name, start, stop = splits.parse(self.split, sizes)
    return range(first[name] + start, first[name] + stop)

  @property
  def num_classes(self) -> int:
    """10, or 0 where labels are hidden."""
    return 10 if self.labels else 0

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hex digits of the images in order; labels play no part."""
    images = _load()[0][self._range.start : self._range.stop]
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]

  def describe(self, index: int) -> str:
    """What to call a record in an error message."""
    return f"digits[{self.split}] record {index}"

  def __len__(self) -> int:
    return len(self._range)

  def __getitem__(self, index: int) -> Record:
    images, labels = _load()
    row = self._range[index]
    image = np.repeat(images[row, :, :, None], 3, axis=-1)
    label = int(labels[row]) if self.labels else -1
    return {"image": image, "label": label, "id": index % len(self)}


@functools.lru_cache(maxsize=1)
def _load() -> tuple[UInt8[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
  """Images and labels; records take turns over classes, test ones first."""
  from sklearn.datasets import load_digits  # slow to import

  images, labels = load_digits(return_X_y=True)
  rank = np.empty(len(labels), np.int64)
  shuffle = np.random.RandomState(0)  # its stream is frozen, Generator's not
  for digit in range(10):
    rows = np.flatnonzero(labels == digit)
    rank[rows] = shuffle.permutation(len(rows))
  order = np.lexsort((labels, rank))
  pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
  return pixels[order], labels[order]
