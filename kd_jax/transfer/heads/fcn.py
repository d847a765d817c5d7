"""A small fully convolutional head (arXiv:1411.4038), the usual auxiliary one.

PSPNet (arXiv:1612.01105, section 3.3) trains it on the last but one stage with
the weight 0.4, UPerNet's users as well.
"""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.transfer.heads import base
from kd_jax.types import Taps


class Head(base.MapHead):
  """3x3 convolution and classifier.

  Attributes:
    tap: the map that it reads.
    channels: width of the 3x3 convolution.
    act_layer: 'relu' or 'relu6'.
  """

  tap: str = "stage3"
  channels: int = 256
  act_layer: str = "relu"

  def __post_init__(self) -> None:
    super().__post_init__()
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
    """See `base.MapHead`; parameters `conv1` and `classifier`."""
    x = base.map_of(self.tap, taps)
    x = self.conv_norm("conv1", self.channels, 3, self.act_layer)(
      x, train=train
    )
    return self.classify(x, train)
