"""A bank that has not been written yet."""

from __future__ import annotations

import dataclasses

from kd_jax.data.bank.reader import Bank
from kd_jax.data.bank.storage import Header
from kd_jax.interfaces import computed


@dataclasses.dataclass(frozen=True)
class Described(Bank):
  """Says what it would hold; there is nothing to read.

  Attributes:
    described: its header.
  """

  described: Header | None = None

  @computed
  def header(self) -> Header:
    """That of the bank to come."""
    assert self.described is not None
    return self.described
