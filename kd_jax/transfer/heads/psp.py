"""PSPNet's head (arXiv:1612.01105): pyramid pooling and a convolution.

Layer by layer that of the authors' PyTorch code, which KDEP transfers with.
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.transfer.heads import base
from kd_jax.types import Taps


class Head(base.MapHead):
  """Pyramid pooling, 3x3 convolution, classifier.

  Attributes:
    tap: the map that it reads.
    bins: sides of the grids that are pooled; each gets an equal share of the
      map's channels.
    channels: width of the 3x3 convolution.
    act_layer: 'relu' or 'relu6'.
  """

  tap: str = base.LAST
  bins: tuple[int, ...] = (1, 2, 3, 6)
  channels: int = 512
  act_layer: str = "relu"

  def __post_init__(self) -> None:
    super().__post_init__()
    base.check_bins(self.bins)
    base.check_act(self.act_layer)
    base.at_least("channels", self.channels, 1)

  @property
  def needs(self) -> tuple[str, ...]:
    """See `base.MapHead`."""
    return (self.tap,)

  @nn.compact
  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """See `base.MapHead`; parameters `ppm`, `bottleneck`, `classifier`."""
    x = base.map_of(self.tap, taps)
    share = max(x.shape[-1] // len(self.bins), 1)
    ppm = base.PyramidPooling(
      self.bins, share, self.act_layer, dtype=self.dtype, name="ppm"
    )
    x = ppm(x, train=train)
    x = self.conv_norm("bottleneck", self.channels, 3, self.act_layer)(
      x, train=train
    )
    return self.classify(x, train)
