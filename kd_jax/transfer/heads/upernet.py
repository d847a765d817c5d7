"""UPerNet (arXiv:1807.10221, section 3.1): pyramid pooling on top of an FPN.

Layer by layer that of mmsegmentation and transformers; maps are resized
without aligned corners.
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, maps
from kd_jax.transfer.heads import base
from kd_jax.types import Taps

_EPS = 1e-5


class Head(base.PyramidHead):
  """Pyramid pooling of the last map, top-down sums, all maps fused.

  Attributes:
    bins: sides of the grids that are pooled.
    channels: width of every map.
    layer_norm: normalise every map over its channels first, as Swin and
      ConvNeXt do, whose stages end without; their last ReLU bounds the others.
  """

  bins: tuple[int, ...] = (1, 2, 3, 6)
  channels: int = 512
  layer_norm: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    base.check_bins(self.bins)
    base.at_least("channels", self.channels, 1)

  @nn.compact
  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """See `base.MapHead`.

    Parameters: `ppm`, `bottleneck`, `lateral_*`, `fpn_*`, `fuse`,
    `classifier`, and `norm_*`.
    """
    found = [self._input(name, taps) for name in base.PYRAMID]
    ppm = base.PyramidPooling(
      self.bins,
      self.channels,
      align_corners=False,
      dtype=self.dtype,
      name="ppm",
    )
    top = ppm(found[-1], train=train)
    top = self.conv_norm("bottleneck", self.channels, 3)(top, train=train)
    pyramid = [top]
    for name, x in zip(base.PYRAMID[-2::-1], found[-2::-1], strict=True):
      lateral = self.conv_norm(f"lateral_{name}", self.channels, 1)(
        x, train=train
      )
      size = maps.size_of(lateral)
      top = lateral + maps.resize(top, size, align_corners=False)
      pyramid.append(
        self.conv_norm(f"fpn_{name}", self.channels, 3)(top, train=train)
      )
    x = base.same_size(pyramid[::-1])
    x = self.conv_norm("fuse", self.channels, 3)(x, train=train)
    return self.classify(x, train)

  def _input(self, name: str, taps: Taps) -> Array:
    x = taps[name]
    if self.layer_norm:
      x = layers.layer_norm(_EPS, self.dtype, f"norm_{name}")(x)
    return x
