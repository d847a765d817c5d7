"""Gates of channels beside squeeze-and-excitation, and its variants by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

Rule = tuple[str, str, str]


class Eca(nn.Module):
  """Gates from neighbouring channels' averages (arXiv:1910.03151).

  Attributes:
    dtype: compute dtype.
  """

  dtype: layers.Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Scales the channels; parameter `kernel`, one number per neighbour."""
    size = int(abs(math.log2(x.shape[-1]) + 1) / 2)
    size = max(size if size % 2 else size + 1, 3)
    init = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    kernel = self.param("kernel", init, (size, 1), jnp.float32)[:, 0]
    pooled = x.mean((1, 2))
    padded = jnp.pad(pooled, ((0, 0), (size // 2, size // 2)))
    width = x.shape[-1]
    gate = sum(
      kernel[i].astype(x.dtype) * padded[:, i : i + width] for i in range(size)
    )
    return x * jax.nn.sigmoid(gate)[:, None, None]


class GlobalContext(nn.Module):
  """Adds a bottleneck of an attended average (arXiv:1904.11492).

  Attributes:
    width: hidden channels of the bottleneck.
    dtype: compute dtype.
    gate: multiply by the sigmoid of the result instead of adding it.
  """

  width: int
  dtype: layers.Dtype = None
  gate: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    dense = functools.partial(layers.Dense, dtype=self.dtype)
    init = initializers.he_normal()
    scores = dense(1, kernel_init=init, name="attn")(x)
    pixels = x.reshape(len(x), -1, x.shape[-1])
    weights = jax.nn.softmax(scores.reshape(len(x), -1))
    y = jnp.einsum("np,npc->nc", weights, pixels)
    y = dense(self.width, name="fc1")(y)
    y = nn.relu(layers.layer_norm(1e-6, self.dtype, "norm")(y))
    zeros = initializers.lecun_normal() if self.gate else initializers.zeros
    y = dense(x.shape[-1], kernel_init=zeros, name="fc2")(y)[:, None, None]
    return x * jax.nn.sigmoid(y) if self.gate else x + y


KINDS = ("", "se", "eca", "gc", "gca")
"""Names of gates, as in timm; '' is none."""


def gate(
  kind: str,
  width: int,
  name: str,
  *,
  ratio: float = 0.0,
  divisor: int = 8,
  dtype: layers.Dtype = None,
) -> Callable[[Array], Array]:
  """A module by its name.

  Args:
    kind: one of `KINDS`, not ''.
    width: number of gated channels.
    name: of the module.
    ratio: hidden channels per gated channel; 0 is that of `kind`.
    divisor: what the hidden channels of 'se' are a multiple of.
    dtype: compute dtype.
  """
  if kind == "eca":
    return Eca(dtype, name=name)
  if kind == "se":
    hidden = width * (ratio or 1 / 16)
    hidden = max(divisor, int(hidden + divisor / 2) // divisor * divisor)
    return layers.SqueezeExcite(hidden, dtype, name=name)
  hidden = max(1, int(width * (ratio or 1 / 8) + 0.5))
  return GlobalContext(hidden, dtype, gate=kind == "gc", name=name)


def rules(theirs: str, ours: str) -> tuple[Rule, ...]:
  """Names in timm of any gate; see `kd_jax.convert.rules`."""
  return (
    (f"{theirs}.fc1", f"{ours}/reduce", "conv2d"),
    (f"{theirs}.fc2", f"{ours}/expand", "conv2d"),
    (f"{theirs}.conv.weight", f"{ours}/kernel", "taps"),
    (f"{theirs}.conv_attn.weight", f"{ours}/attn/kernel", "pointwise"),
    (f"{theirs}.conv_attn.bias", f"{ours}/attn/bias", "copy"),
    (f"{theirs}.mlp_add.fc{{i}}.weight", f"{ours}/fc{{i}}/kernel", "pointwise"),
    (f"{theirs}.mlp_add.fc{{i}}.bias", f"{ours}/fc{{i}}/bias", "copy"),
    (f"{theirs}.mlp_add.norm", f"{ours}/norm", "affine"),
  )
