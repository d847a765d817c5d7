"""The teacher's side of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from kd_jax.data.bank import Bank
from kd_jax.interfaces import TeacherSource


@dataclasses.dataclass(frozen=True)
class Teaching:
  """A teacher that is ready to be asked.

  Attributes:
    source: yields taps.
    variables: of the teacher network, or constants of a bank; {} if the source
      keeps its weights to itself.
    fingerprint: of network and variables.
  """

  source: TeacherSource
  variables: Mapping[str, Any]
  fingerprint: str

  @property
  def network(self) -> nn.Module | None:
    """The Flax network behind the source, if there is one."""
    return self.source.network

  @property
  def bank(self) -> Bank | None:
    """What stores the taps, if no network runs."""
    stored = self.source.stored
    assert stored is None or isinstance(stored, Bank)
    return stored
