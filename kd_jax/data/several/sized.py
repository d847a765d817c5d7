"""The same crop in several sizes, for teachers with sizes of their own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from kd_jax.data.preprocess import Preprocess, pixels
from kd_jax.data.views import Draw
from kd_jax.types import Record

Changes = tuple[tuple[str, Any], ...]
"""((field of Preprocess, value), ...)."""

FIELDS = (
  "image_size",
  "train_interpolation",
  "interpolation",
)
"""What a teacher may see otherwise than the student: the pixels of the crop,
not what it shows."""


@dataclasses.dataclass(frozen=True)
class Sized(Preprocess):
  """The student's views, and beside them those of some teachers.

  Everything random is drawn alike for all of them.

  Attributes:
    also: ((name, changes), ...): for each a view that differs in these fields.
  """

  also: tuple[tuple[str, Changes], ...] = ()

  @functools.cached_property
  def each(self) -> dict[str, Preprocess]:
    """{name: how its view is made}."""
    names = [field.name for field in dataclasses.fields(Preprocess)]
    own = {name: getattr(self, name) for name in names}
    return {
      name: Preprocess(**{**own, **dict(changes)})
      for name, changes in self.also
    }

  def train(self, record: Record, rng: Draw) -> Mapping[str, np.ndarray]:
    """See `Preprocess`; with 'views', {name: (m, t, t, 3)}.

    With a canvas the step cuts them out of the same image.
    """
    decoded: Record = {**record, "image": pixels(record)}
    found = dict(super().train(decoded, rng))
    if self.canvas:
      return found
    more: Any = {
      name: view.train(decoded, rng)["image"]
      for name, view in self.each.items()
    }
    return {**found, "views": more}

  def others(self, record: Record) -> Mapping[str, UInt8[np.ndarray, "t t 3"]]:
    """See `Views`."""
    decoded: Record = {**record, "image": pixels(record)}
    return {name: view.eval(decoded) for name, view in self.each.items()}

  @property
  def other_cuts(self) -> Mapping[str, tuple[int, str]]:
    """See `Views`."""
    return {
      name: (view.image_size, view.train_interpolation)
      for name, view in self.each.items()
    }

  def reduction(self, size: tuple[int, int], rng: Draw) -> int:
    """See `Views`: as far as the largest view allows."""
    sizes = [self.image_size, *(v.image_size for v in self.each.values())]
    largest = dataclasses.replace(self, image_size=max(sizes), also=())
    return Preprocess.reduction(largest, size, rng)
