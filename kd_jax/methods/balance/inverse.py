"""Every term over its own moving average, so that all stay near 1.

AdaLoss (arXiv:1708.06832) weighs losses by the inverse of their expectation,
taken as a moving average; no gradient flows through it. A term counts by how
much it falls in proportion, whatever its size. Only the idea is the paper's:
the average is corrected for its start as Adam's is.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.methods.balance import base
from kd_jax.types import Stats


@dataclasses.dataclass(frozen=True)
class Balance(base.BalanceBase):
  """loss / average(loss).

  Attributes:
    decay: of the moving average, per microbatch.

  Raises:
    ValueError: a decay outside of [0, 1).
  """

  decay: float = 0.99

  def __post_init__(self) -> None:
    if not 0 <= self.decay < 1:
      raise ValueError(f"balance.decay is {self.decay}; it must be in [0, 1)")

  def init(self, terms: tuple[str, ...]) -> dict[str, Any]:
    """{term: average so far}, and 'left', what of the start is left in them."""
    zeros = {_key(term): jnp.zeros((), jnp.float32) for term in terms}
    return {"average": zeros, "left": jnp.ones((), jnp.float32)}

  def balanced(
    self, stats: Stats, losses: base.Losses, key: Array | None
  ) -> tuple[dict[str, Float[Array, ""]], Stats]:
    """See above."""
    del key
    left = stats["left"] * self.decay
    average, found = {}, {}
    for term, loss in losses.items():
      now = jax.lax.stop_gradient(loss).astype(jnp.float32)
      before = stats["average"][_key(term)]
      mean = self.decay * before + (1 - self.decay) * now
      average[_key(term)] = mean
      found[term] = loss * ((1 - left) / jnp.maximum(mean, 1e-30))
    return found, {"average": average, "left": left}


def _key(term: str) -> str:
  """A term as part of a path."""
  return term.replace("/", ".")
