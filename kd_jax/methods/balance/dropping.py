"""Teacher dropping (UNIC, arXiv:2408.05088): the hardest teacher always counts.

For every image the teacher with the largest loss stays, every other one is
dropped with some probability. What stays is averaged over the whole batch:
loss = sum_it c_it loss_it / sum_it c_it. A teacher's loss is the mean of its
terms, which all share its coefficients.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.methods.balance import base
from kd_jax.types import Stats


@dataclasses.dataclass(frozen=True)
class Balance(base.BalanceBase):
  """Drops teachers, image by image.

  Attributes:
    prob: probability that a teacher is dropped which is not the hardest.

  Raises:
    ValueError: no probability.
  """

  prob: float = 0.5
  needs_images: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if not 0 <= self.prob <= 1:
      raise ValueError(f"balance.prob is {self.prob}; it must be in [0, 1]")

  def balanced(
    self, stats: Stats, losses: base.Losses, key: Array | None
  ) -> tuple[dict[str, Float[Array, ""]], Stats]:
    """See above; one random number per image and teacher but the hardest.

    Raises:
      ValueError: no key to draw them with.
    """
    if key is None:
      raise ValueError(
        "teachers are dropped at random, and these losses came without a "
        "random key: put one into the variables as 'key', as the step does"
      )
    parts: dict[str, list[Array]] = {}
    for term, loss in losses.items():
      parts.setdefault(term.partition("/")[0], []).append(loss)
    names = sorted(parts)
    each = jnp.stack([jnp.mean(jnp.stack(parts[n]), 0) for n in names], 1)
    uniform = jax.random.uniform(key, (each.shape[0], len(names) - 1))
    kept = coefficients(jax.lax.stop_gradient(each), uniform, self.prob)
    share = dict(zip(names, (kept / kept.sum()).T, strict=True))
    return {
      term: jnp.sum(loss * share[term.partition("/")[0]])
      for term, loss in losses.items()
    }, stats


def coefficients(
  losses: Float[Array, "n t"], uniform: Float[Array, "n u"], prob: float
) -> Float[Array, "n t"]:
  """1 where a teacher counts for an image, else 0.

  Args:
    losses: of every image and teacher.
    uniform: for every image a number in [0, 1) per teacher, in order, without
      the one of the largest loss.
    prob: below which a teacher is dropped.
  """
  teachers = losses.shape[1]
  hardest = jnp.argmax(losses, 1)[:, None]
  # A teacher behind the hardest one has the number before its own place.
  place = jnp.arange(teachers)[None]
  place = place - (place > hardest)
  padded = jnp.pad(uniform, ((0, 0), (0, 1)))
  drawn = jnp.take_along_axis(padded, place, 1)
  stays = (drawn >= prob) | (jnp.arange(teachers)[None] == hardest)
  return stays.astype(losses.dtype)
