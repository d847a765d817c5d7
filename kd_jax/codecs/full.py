"""All class probabilities (FKD's 'ori')."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from kd_jax.codecs import base


@dataclasses.dataclass(frozen=True)
class Codec(base.LabelCodec):
  """Stores softmax(logits / temperature).

  Attributes:
    temperature: of the softmax.
    dtype: 'float32' or 'float16'.

  Raises:
    ValueError: another dtype, or no positive temperature.
  """

  temperature: float = 1.0
  dtype: str = "float32"

  def __post_init__(self) -> None:
    base.check_temperature(self.temperature)
    base.one_of("dtype", self.dtype, ("float32", "float16"))

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`."""
    return {"probability": (tuple(widths["logits"]), self.dtype)}

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    del constants
    return {"probability": self.probabilities(taps).astype(self.dtype)}

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """Without a loss but that of rounding."""
    del constants, widths
    return self.logits(stored["probability"].astype(jnp.float32))
