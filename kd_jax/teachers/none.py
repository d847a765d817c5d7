"""No teacher, for methods that learn from labels alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kd_jax import interfaces
from kd_jax.types import Batch, Teacher, Variables


@dataclasses.dataclass(frozen=True)
class Source(interfaces.TeacherSource):
  """Offers no taps; a phase that needs one is refused before step 0."""

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """An empty teacher."""
    del frozen, batch
    return Teacher({}, None)


def load(
  name: str, weights: Any, overrides: Mapping[str, Any]
) -> tuple[Source, Variables]:
  """The empty teacher; its arguments are not looked at."""
  del name, weights, overrides
  return Source(), {}
