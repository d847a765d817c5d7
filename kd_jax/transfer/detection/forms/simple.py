"""The simple feature pyramid of a plain transformer (arXiv:2203.16527)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, token_net
from kd_jax.transfer.detection import parts
from kd_jax.transfer.detection.forms import base
from kd_jax.types import Taps

_EPS = 1e-6
SCALES = ("4", "2", "1", "half")


@dataclasses.dataclass(frozen=True)
class Form(base.PyramidForm):
  """Levels of a quarter, half, one, two and four patches; linear box head.

  All come from the last block's tokens, in front of the final normalisation.
  """

  def inputs(
    self, net: backbone.Backbone, taps: Taps, size: base.Size
  ) -> tuple[Float[Array, "n _ _ _"], ...]:
    """See `base.BaseForm`."""
    if not isinstance(net, token_net.TokenNet):
      raise ValueError(
        "detector 'simple' reads the tokens of a plain transformer; this "
        "student has maps. Set --config.detector.name=fpn"
      )
    grid = net.grid_for(size)
    prefix = net.num_prefix_tokens
    return (patches.tokens_to_map(taps["stage4"], prefix, grid),)

  def strides(
    self, maps: Sequence[Float[Array, "n _ _ _"]], size: base.Size
  ) -> tuple[float, ...]:
    """See `base.BaseForm`."""
    patch = base.stride_of(maps[0], size)
    return tuple(patch / 4 * 2**i for i in range(5))

  def neck(self, dtype: layers.Dtype) -> Neck:
    """See `base.BaseForm`."""
    return Neck(self.channels, dtype)


class Neck(nn.Module):
  """One map scaled four times, each with two convolutions behind it.

  Layers start as PyTorch's do by default, as in the authors' code.

  Attributes:
    channels: width of the levels.
    dtype: compute dtype.
  """

  channels: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, maps: Sequence[Float[Array, "n _ _ _"]]
  ) -> list[Float[Array, "n _ _ c"]]:
    """Five levels, finest first; the last is every other pixel of the fourth.

    Parameters, for each of `SCALES`: `up1_*`, `up_norm_*`, `up2_*`, `conv1_*`,
    `norm1_*`, `conv2_*`, `norm2_*`.
    """
    (x,) = maps
    levels = []
    for scale in SCALES:
      y = self._scaled(x, scale)
      for i, size in ((1, 1), (2, 3)):
        init = layers.torch_linear_init(size * size * y.shape[-1])
        y = layers.Conv(
          self.channels,
          size,
          dtype=self.dtype,
          kernel_init=init,
          name=f"conv{i}_{scale}",
        )(y)
        y = layers.layer_norm(_EPS, self.dtype, f"norm{i}_{scale}")(y)
      levels.append(y)
    return [*levels, levels[-1][:, ::2, ::2]]

  def _scaled(
    self, x: Float[Array, "n h w c"], scale: str
  ) -> Float[Array, "n _ _ _"]:
    width = x.shape[-1]
    if scale == "half":
      # What an odd side lacks never wins.
      return nn.max_pool(x, (2, 2), (2, 2), "SAME")
    if scale in ("2", "4"):
      x = self._up(x, width // 2, f"up1_{scale}")
    if scale == "4":
      x = layers.layer_norm(_EPS, self.dtype, "up_norm_4")(x)
      x = nn.gelu(x, approximate=False)
      x = self._up(x, width // 4, "up2_4")
    return x

  def _up(self, x: Array, features: int, name: str) -> Array:
    # PyTorch takes the outputs of a transposed convolution for its fan in.
    init = layers.torch_linear_init(4 * features)
    layer = parts.Deconv(features, self.dtype, init, init, name=name)
    return layer(x)
