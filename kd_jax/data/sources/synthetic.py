"""Made-up images, the same on every machine, for benchmarks and smoke runs."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import UInt8

from kd_jax import interfaces
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Coloured gratings: the class sets their frequency, the record the rest.

  Attributes:
    size: side of the square images, pixels.
    length: number of records.
    num_classes: labels go round; 0 gives -1.
    seed: of the images.

  Raises:
    ValueError: a number is out of range.
  """

  size: int = 256
  length: int = 1024
  num_classes: int = 10
  seed: int = 0

  def __post_init__(self) -> None:
    least = {"size": 1, "length": 1, "num_classes": 0, "seed": 0}
    for name, low in least.items():
      if getattr(self, name) < low:
        raise ValueError(
          f"synthetic.{name}={getattr(self, name)}; it must be at least {low}"
        )

  @interfaces.computed
  def class_names(self) -> tuple[str, ...]:
    """The classes' numbers."""
    return tuple(map(str, range(self.num_classes)))

  @interfaces.computed
  def fingerprint(self) -> str:
    """16 hex digits of the settings, which determine the images."""
    text = f"synthetic {dataclasses.astuple(self)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def all_labels(self) -> list[int]:
    """The label of every record, in order."""
    return list(map(self._label, range(self.length)))

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> Record:
    index = range(self.length)[index]
    label = self._label(index)
    rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
    # Gray rows plus coloured columns: long inner loops make it cheap.
    rows, columns = self._wave(label, 1, rng), self._wave(label, 3, rng)
    image = (rows + columns.reshape(1, -1)).reshape(self.size, self.size, 3)
    return {"image": image, "label": label, "id": index}

  def _label(self, index: int) -> int:
    return index % self.num_classes if self.num_classes else -1

  def _wave(
    self, label: int, channels: int, rng: np.random.Generator
  ) -> UInt8[np.ndarray, "size channels"]:
    turns = np.arange(self.size)[:, None] * (label + 2) / self.size
    wave = np.sin(2 * np.pi * (turns + rng.random(channels)))
    return np.rint(63.5 * (1 + wave * rng.random(channels))).astype(np.uint8)
