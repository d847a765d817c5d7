"""A tap as it is: the reference for every other codec."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from kd_jax.codecs import base
from kd_jax.interfaces import computed


@dataclasses.dataclass(frozen=True)
class Codec(base.CodecBase):
  """Stores one tap in floating point.

  Attributes:
    tap: which.
    dtype: 'float32' or 'float16'.

  Raises:
    ValueError: another dtype.
  """

  tap: str = "feature"
  dtype: str = "float32"

  def __post_init__(self) -> None:
    base.one_of("dtype", self.dtype, ("float32", "float16"))

  @computed
  def taps(self) -> tuple[str, ...]:
    """The one."""
    return (self.tap,)

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`."""
    return {"values": (tuple(widths[self.tap]), self.dtype)}

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """Rounds, and keeps what is too large finite."""
    del constants
    limit = float(jnp.finfo(self.dtype).max)
    values = jnp.clip(taps[self.tap].astype(jnp.float32), -limit, limit)
    return {"values": values.astype(self.dtype)}

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """float32."""
    del constants, widths
    return {self.tap: stored["values"].astype(jnp.float32)}
