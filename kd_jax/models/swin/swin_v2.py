"""Swin Transformer V2 (arXiv:2111.09883) with timm's names and maps.

Against Swin: cosine attention with a learnt temperature, position biases from
a small MLP of logarithmic coordinates, and normalisation at the end of the
branches. Initialisation: linear layers N(0, 0.02^2), biases 0, temperatures
log 10, normalisation scales of the branches 0 (each block starts as the
identity), patch embedding as PyTorch's convolution. timm's default
drop_path_rate is 0.1; here it is 0.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import window_checkpoints, windows
from kd_jax.models.swin import swin
from kd_jax.types import STAGES

_TINY = {"depths": (2, 2, 6, 2)}
_SMALL = {"depths": (2, 2, 18, 2)}
_BASE = {**_SMALL, "embed_dim": 128, "num_heads": (4, 8, 16, 32)}
_LARGE = {**_SMALL, "embed_dim": 192, "num_heads": (6, 12, 24, 48)}
_WINDOW12 = {
  "img_size": 192,
  "window_size": 12,
  "input_size": (3, 192, 192),
  "num_classes": 21841,
}
_TO16 = {"window_size": 16, "pretrained_window_sizes": (12, 12, 12, 6)}
_TO24 = {
  "img_size": 384,
  "window_size": 24,
  "pretrained_window_sizes": (12, 12, 12, 6),
  "input_size": (3, 384, 384),
  "crop_pct": 1.0,
}
VARIANTS = {
  "swinv2_tiny_window8_256": {**_TINY, "window_size": 8},
  "swinv2_tiny_window16_256": {**_TINY, "window_size": 16},
  "swinv2_small_window8_256": {**_SMALL, "window_size": 8},
  "swinv2_small_window16_256": {**_SMALL, "window_size": 16},
  "swinv2_base_window8_256": {**_BASE, "window_size": 8},
  "swinv2_base_window16_256": {**_BASE, "window_size": 16},
  "swinv2_base_window12_192": {**_BASE, **_WINDOW12},
  "swinv2_base_window12to16_192to256": {**_BASE, **_TO16},
  "swinv2_base_window12to24_192to384": {**_BASE, **_TO24},
  "swinv2_large_window12_192": {**_LARGE, **_WINDOW12},
  "swinv2_large_window12to16_192to256": {**_LARGE, **_TO16},
  "swinv2_large_window12to24_192to384": {**_LARGE, **_TO24},
}

RULES = swin.rules(
  ("q_bias", "q_bias", "copy"),
  ("v_bias", "v_bias", "copy"),
  ("logit_scale", "logit_scale", "copy"),
  ("cpb_mlp.0", "cpb_mlp1", "dense"),
  ("cpb_mlp.2.weight", "cpb_mlp2/kernel", "linear"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

adapt = window_checkpoints.adapt

_MAX_SCALE = 100.0
_MAX_BIAS = 16.0
_HIDDEN = 512


class Attention(swin.Attention):
  """Cosine attention inside windows, biased by relative positions.

  Only query and value have a bias; logits and softmax are at least float32.

  Attributes:
    pretrained: height and width of the window that the MLP of the biases was
      trained with; zeros stand for `size`.
  """

  pretrained: tuple[int, int] = (0, 0)

  @nn.compact
  def __call__(
    self, x: Float[Array, "n m l d"], mask: np.ndarray | None
  ) -> Float[Array, "n m l d"]:
    """Mixes the tokens of each window; see `windows.softmax_attention`."""
    d = x.shape[-1]
    options = {"dtype": self.dtype, "kernel_init": windows.linear_init}
    qkv = layers.Dense(3 * d, use_bias=False, name="qkv", **options)(x)
    if self.qkv_bias:
      zeros = initializers.zeros
      query, value = (
        self.param(name, zeros, (d,), jnp.float32)
        for name in ("q_bias", "v_bias")
      )
      bias = jnp.concatenate([query, jnp.zeros_like(query), value])
      qkv = qkv + bias.astype(qkv.dtype)
    qkv = qkv.reshape(*x.shape[:3], 3, self.num_heads, -1)
    query, key, value = (qkv[..., i, :, :] for i in range(3))
    logits = self._scale() * jnp.einsum(
      "nmqhd,nmkhd->nmhqk", _normalised(query), _normalised(key)
    )
    x = windows.softmax_attention(logits + self._bias(), value, mask)
    return layers.Dense(d, name="proj", **options)(x)

  def _scale(self) -> Float[Array, "h 1 1"]:
    start = initializers.constant(math.log(10))
    shape = (self.num_heads, 1, 1)
    scale = self.param("logit_scale", start, shape, jnp.float32)
    return jnp.exp(jnp.minimum(scale, math.log(_MAX_SCALE)))

  def _bias(self) -> Float[Array, "h l l"]:
    hidden = layers.Dense(
      _HIDDEN, kernel_init=windows.linear_init, name="cpb_mlp1"
    )
    out = layers.Dense(
      self.num_heads,
      use_bias=False,
      kernel_init=windows.linear_init,
      name="cpb_mlp2",
    )
    table = out(nn.relu(hidden(coordinates(self.size, self.pretrained))))
    bias = table[windows.relative_index(self.size)].transpose(2, 0, 1)
    return _MAX_BIAS * nn.sigmoid(bias)


def _normalised(x: Array) -> Array:
  x = x.astype(windows.wide(x.dtype))
  # The root of a padded token's zero would have no finite gradient.
  square = jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24)
  return x * jax.lax.rsqrt(square)


def coordinates(
  size: tuple[int, int], pretrained: tuple[int, int]
) -> Float[np.ndarray, "p 2"]:
  """Logarithmic relative coordinates (eq. 4 of the paper), float32.

  Args:
    size: height and width of the window.
    pretrained: the window at which coordinates reach 1; zeros for `size`.

  Returns:
    One row per relative position, in the order of `windows.relative_index`.
  """
  axes = []
  for side, reference in zip(size, pretrained, strict=True):
    reach = max((reference or side) - 1, 1)
    place = np.arange(1 - side, side, dtype=np.float32) / np.float32(reach) * 8
    axes.append(np.sign(place) * np.log2(np.abs(place) + 1) / math.log2(8))
  grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
  return grid.reshape(-1, 2).astype(np.float32)


class Block(swin.Block):
  """Window attention and an MLP, each normalised at its end.

  Attributes:
    pretrained: see `Attention`.
  """

  pretrained: tuple[int, int] = (0, 0)

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Two residual branches."""
    attention = Attention(
      self.num_heads,
      self.window.size,
      self.qkv_bias,
      self.dtype,
      self.pretrained,
      name="attn",
    )
    norm1, norm2 = (
      nn.LayerNorm(
        epsilon=windows.EPS,
        dtype=self.dtype,
        use_fast_variance=False,
        scale_init=initializers.zeros,
        name=name,
      )
      for name in ("norm1", "norm2")
    )
    y = norm1(windows.attend(x, self.window, attention))
    x = x + layers.DropPath(self.drop_path)(y, train=train)
    y = norm2(windows.Mlp(self.mlp_ratio, self.dtype, name="mlp")(x))
    return x + layers.DropPath(self.drop_path)(y, train=train)


class Model(swin.Model):
  """Swin V2 family; `VARIANTS` lists the named members.

  Taps are those of Swin.

  Attributes:
    img_size: see `swin.Model`.
    input_size: see `Backbone`.
    pretrained_window_sizes: side of the window, or (height, width), per stage
      that the position MLP was trained with; 0 stands for the model's own.
  """

  MERGE_NORM_FIRST: ClassVar[bool] = False
  NO_DECAY: ClassVar[tuple[str, ...]] = (
    "cpb_mlp1",
    "cpb_mlp2",
    "logit_scale",
  )

  img_size: int | tuple[int, int] = 256
  input_size: tuple[int, ...] = (3, 256, 256)
  pretrained_window_sizes: tuple[Any, ...] = (0, 0, 0, 0)

  def __post_init__(self) -> None:
    sizes = windows.frozen(self.pretrained_window_sizes)
    self.pretrained_window_sizes = sizes
    super().__post_init__()
    self._pretrained()

  def blocks(
    self, stage: str
  ) -> tuple[type[nn.Module], tuple[dict[str, Any], ...]]:
    """Class and fields of the blocks of 'stage1'..'stage4'."""
    _, fields = super().blocks(stage)
    pretrained = self._pretrained()[STAGES.index(stage) - 1]
    return Block, tuple({**f, "pretrained": pretrained} for f in fields)

  def _pretrained(self) -> tuple[tuple[int, int], ...]:
    sizes = self.pretrained_window_sizes
    if len(sizes) != 4:
      raise ValueError(
        f"pretrained_window_sizes is {sizes}; it must have 4 entries"
      )
    name = "pretrained_window_sizes"
    return tuple(windows.pair(name, s) if s else (0, 0) for s in sizes)
