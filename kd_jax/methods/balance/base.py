"""What every balance offers; `config.balance` names one and its fields.

A balance is one file with a frozen dataclass `Balance`. It changes loss terms
before `config.losses` weighs them; what is reported is what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Array, Float

from kd_jax.types import Stats

Losses: TypeAlias = Mapping[str, Float[Array, "*n"]]
"""{'teacher/term': loss}, of every image where `needs_images`."""


class BalanceBase:
  """Terms as they are; the weights of `config.losses` are all there is."""

  needs_images: ClassVar[bool] = False
  """Whether the loss of every image is asked for, not their mean."""

  def init(self, terms: tuple[str, ...]) -> dict[str, Any]:
    """Statistics before the first step, by term; {} if there are none."""
    del terms
    return {}

  def balanced(
    self, stats: Stats, losses: Losses, key: Array | None
  ) -> tuple[dict[str, Float[Array, ""]], Stats]:
    """The terms, and new statistics.

    Args:
      stats: what `init` or the step before returned.
      losses: of a microbatch.
      key: random; None where nothing is drawn, outside of a step.

    Raises:
      ValueError: something has to be drawn, and there is no key.
    """
    del key
    return dict(losses), stats
