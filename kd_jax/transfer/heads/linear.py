"""A linear classifier of every position: what the features say by themselves.

With batch normalisation in front it is DINOv2's head for frozen networks
(arXiv:2304.07193, section 7.4).
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.transfer.heads import base
from kd_jax.types import Taps


class Head(base.MapHead):
  """A 1x1 convolution.

  Attributes:
    dropout: see `base.MapHead`.
    tap: the map that it reads.
    batch_norm: normalise the map first.
  """

  dropout: float = 0.0
  tap: str = base.LAST
  batch_norm: bool = True

  @property
  def needs(self) -> tuple[str, ...]:
    """See `base.MapHead`."""
    return (self.tap,)

  @nn.compact
  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """See `base.MapHead`; parameters `bn` and `classifier`."""
    x = base.map_of(self.tap, taps)
    if self.batch_norm:
      x = layers.BatchNorm(self.dtype, name="bn")(x, train=train)
    return self.classify(x, train)
