"""Stem and blocks of the networks of MLPs.

mixer   an MLP over the tokens, then one over the channels
resmlp  a linear layer over the tokens, then an MLP (arXiv:2105.03404)
gmlp    one MLP whose gate looks over the tokens (arXiv:2105.08050)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, transformer

EPS = 1e-6
"""Of all layer normalisations but that of a gate."""

_GATE_EPS = 1e-5
_TINY = 1e-6

_KERNEL, _BIAS = initializers.xavier_uniform(), initializers.normal(_TINY)


class Stem(nn.Module):
  """Patches as tokens.

  Attributes:
    features: width of a token.
    patch_size: (height, width) in pixels.
    dtype: compute dtype.
  """

  features: int
  patch_size: tuple[int, int]
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
    """Row by row."""
    embed = patches.PatchEmbed(
      self.features,
      self.patch_size,
      dtype=self.dtype,
      kernel_init=initializers.lecun_normal(),
      bias_init=initializers.zeros,
      name="patch_embed",
    )
    return embed(x).reshape(len(x), -1, self.features)


def mlp(
  width: int,
  activation: Callable[[Array], Array],
  dtype: layers.Dtype,
  name: str,
  *,
  gated: bool = False,
) -> transformer.Mlp:
  """An MLP as these networks begin it; a gate begins near 1."""
  return transformer.Mlp(
    width,
    activation,
    gated=gated,
    gate_last=gated,
    dtype=dtype,
    kernel_init=_gate_kernel if gated else _KERNEL,
    bias_init=_gate_bias if gated else _BIAS,
    out_init=_KERNEL,
    out_bias_init=_BIAS,
    name=name,
  )


def _gate_kernel(
  key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
) -> Array:
  kernel = _KERNEL(key, shape, dtype, out_sharding)
  small = _TINY * jax.random.normal(key, shape, dtype)
  half = shape[1] // 2
  return kernel.at[:, half:].set(small[:, half:])


def _gate_bias(
  key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
) -> Array:
  bias = _BIAS(key, shape, dtype, out_sharding)
  return bias.at[shape[0] // 2 :].set(1.0)


class Block(nn.Module):
  """An MLP over the tokens, then one over the channels.

  Attributes:
    tokens_width: hidden width of the first.
    channels_width: hidden width of the second.
    activation: of both.
    gated: half of the hidden channels of each gate the others.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  tokens_width: int
  channels_width: int
  activation: Callable[[Array], Array]
  gated: bool
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Keeps the shape."""
    y = layers.layer_norm(EPS, self.dtype, "norm1")(x)
    y = self._mlp(self.tokens_width, "mlp_tokens")(y.swapaxes(1, 2))
    x = x + self._dropped(y.swapaxes(1, 2), train)
    y = layers.layer_norm(EPS, self.dtype, "norm2")(x)
    y = self._mlp(self.channels_width, "mlp_channels")(y)
    return x + self._dropped(y, train)

  def _mlp(self, width: int, name: str) -> nn.Module:
    return mlp(width, self.activation, self.dtype, name, gated=self.gated)

  def _dropped(self, y: Array, train: bool) -> Array:
    if not self.drop_path:
      return y
    return layers.DropPath(self.drop_path)(y, train=train)


class Affine(nn.Module):
  """A scale and a shift per channel, in place of a normalisation.

  Attributes:
    dtype: compute dtype.
  """

  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
    """Parameters `alpha` and `beta`, shaped as in timm."""
    shape = (1, 1, x.shape[-1])
    alpha = self.param("alpha", initializers.ones, shape, jnp.float32)
    beta = self.param("beta", initializers.zeros, shape, jnp.float32)
    dtype = self.dtype or jnp.promote_types(x.dtype, jnp.float32)
    return x.astype(dtype) * alpha.astype(dtype) + beta.astype(dtype)


class ResMlp(nn.Module):
  """A linear layer over the tokens, then an MLP over the channels, scaled.

  Attributes:
    width: hidden width of the MLP.
    activation: of the MLP.
    init_values: first value of the scale of each branch.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  width: int
  activation: Callable[[Array], Array]
  init_values: float
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Keeps the shape."""
    y = Affine(self.dtype, name="norm1")(x).swapaxes(1, 2)
    y = layers.Dense(
      x.shape[1], dtype=self.dtype, kernel_init=_KERNEL, name="linear_tokens"
    )(y)
    x = x + self._branch(y.swapaxes(1, 2), "ls1", train)
    y = Affine(self.dtype, name="norm2")(x)
    y = mlp(self.width, self.activation, self.dtype, "mlp_channels")(y)
    return x + self._branch(y, "ls2", train)

  def _branch(self, y: Array, name: str, train: bool) -> Array:
    y = transformer.LayerScale(self.init_values, name=name)(y)
    return layers.DropPath(self.drop_path)(y, train=train)


class GatedMlp(nn.Module):
  """An MLP; half of its channels look over the tokens and gate the others.

  Attributes:
    width: hidden width, both halves.
    activation: of the hidden channels.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  width: int
  activation: Callable[[Array], Array]
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Keeps the shape."""
    y = layers.layer_norm(EPS, self.dtype, "norm")(x)
    y = self.activation(self._dense(self.width, "fc1")(y))
    y, gate = jnp.split(y, 2, axis=-1)
    gate = layers.layer_norm(_GATE_EPS, self.dtype, "gate_norm")(gate)
    look = layers.Dense(
      x.shape[1],
      dtype=self.dtype,
      kernel_init=initializers.normal(_TINY),
      bias_init=initializers.ones,
      name="gate_proj",
    )
    y = y * look(gate.swapaxes(1, 2)).swapaxes(1, 2)
    y = self._dense(x.shape[-1], "fc2")(y)
    return x + layers.DropPath(self.drop_path)(y, train=train)

  def _dense(self, width: int, name: str) -> layers.Dense:
    return layers.Dense(
      width,
      dtype=self.dtype,
      kernel_init=_KERNEL,
      bias_init=_BIAS,
      name=name,
    )
