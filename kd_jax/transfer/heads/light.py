"""SegFormer's decoder of linear layers only (arXiv:2105.15203, section 3.2).

It fuses maps of any sizes, so that it serves plain transformers, whose blocks
all have the same, as well as pyramids.
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.transfer.heads import base
from kd_jax.types import Taps

_EPS = 1e-6


class Head(base.MapHead):
  """Each map to one width and size, a fusing 1x1 convolution, classifier.

  Attributes:
    taps: the maps that it reads; of a plain transformer the stages are the
      blocks at each quarter of the depth.
    channels: width of each map, and of the fused one.
    layer_norm: normalise every map over its channels first, as SegFormer's
      encoder does at the end of each stage.
  """

  taps: tuple[str, ...] = base.PYRAMID
  channels: int = 256
  layer_norm: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    base.at_least("channels", self.channels, 1)
    base.check_names(self.taps)

  @property
  def needs(self) -> tuple[str, ...]:
    """See `base.MapHead`."""
    return self.taps

  @nn.compact
  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """See `base.MapHead`; parameters `norm_*`, `linear_*`, `fuse`, ..."""
    found = []
    for name in self.taps:
      x = base.map_of(name, taps)
      if self.layer_norm:
        x = layers.layer_norm(_EPS, self.dtype, f"norm_{name}")(x)
      fields = {"dtype": self.dtype, "name": f"linear_{name}"}
      found.append(base.conv(x, self.channels, **fields))
    x = base.same_size(found[::-1])
    x = self.conv_norm("fuse", self.channels, 1)(x, train=train)
    return self.classify(x, train)
