"""Layers with PyTorch's conventions, in NHWC.

Padding is explicit and symmetric, max pooling pads with -inf, batch
normalisation has eps 1e-5, momentum 0.1 and an unbiased running variance.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from flax.linen import dtypes
from flax.typing import Initializer
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import convolutions, dense, normalise, pooling

Dtype = jnp.dtype | type | str | None
Dense = dense.Dense

max_pooling: Callable[..., Array] = nn.max_pool
average_pooling: Callable[..., Array] = nn.avg_pool
"""Flax's; it does not say which paddings they take."""

POOLS = ("avg", "max", "avgmax", "catavgmax")
"""Global poolings, named as in timm."""

kaiming_fan_out = initializers.variance_scaling(2.0, "fan_out", "normal")
"""N(0, 2 / (k k c_out)), He et al. 2015 (arXiv:1502.01852), eq. 14."""


class WindowFields(TypedDict, total=False):
  """Fields of a `Conv` that say what it sees."""

  size: int
  stride: int
  dilation: int
  groups: int


class ConvFields(WindowFields):
  """And how much it says."""

  features: int


def torch_linear_init(fan_in: int) -> Initializer:
  """PyTorch's default for linear layers: U(-1, 1) / sqrt(fan_in)."""

  def init(
    key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32
  ) -> Array:
    bound = 1.0 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def parameter(
  module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]
) -> Array:
  """As `module.param`, which traces `init` even where the parameter exists.

  Raises:
    flax.errors.ScopeParamShapeError: it exists and has another shape.
  """
  if not module.has_variable("params", name):
    return module.param(name, init, shape, jnp.float32)
  value = module.get_variable("params", name)
  if value.shape == shape:
    return value
  path = "/".join(module.path)
  raise errors.ScopeParamShapeError(name, path, value.shape, shape)


class Conv(nn.Module):
  """Square convolution; pads so that stride 1 keeps the size.

  Attributes:
    features: number of output channels.
    size: width of the window, odd.
    stride: step in pixels.
    dilation: distance of neighbouring weights.
    groups: number of channel groups.
    dtype: compute dtype; None promotes input and parameters.
    same: TensorFlow's padding, whose extra zeros depend on the size of the
      input and lie below and to the right; else symmetric.
    use_bias: add a bias.
    kernel_init: initialiser of the kernel.
    bias_init: initialiser of the bias.
  """

  features: int
  size: int = 1
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  dtype: Dtype = None
  same: bool = False
  use_bias: bool = False
  kernel_init: Initializer = kaiming_fan_out
  bias_init: Initializer = initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x o"]:
    """Applies the convolution."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = parameter(self, "kernel", self.kernel_init, shape)
    x, kernel = dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    padding = self.dilation * (self.size - 1) // 2
    if self.same:
      x, padding = same_pad(x, self.size, self.stride, self.dilation), 0
    window = convolutions.Window(self.stride, self.dilation, padding)
    y = convolutions.conv(x, kernel, window)
    if not self.use_bias:
      return y
    bias = parameter(self, "bias", self.bias_init, (self.features,))
    return y + bias.astype(y.dtype)


def same_pad(
  x: Float[Array, "n h w c"], size: int, stride: int, dilation: int = 1
) -> Float[Array, "n y x c"]:
  """Zeros for a window without padding to act as TensorFlow's 'SAME'."""
  pads = []
  for length in x.shape[1:3]:
    reach = (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1
    total = max(reach - length, 0)
    pads.append((total // 2, total - total // 2))
  return jnp.pad(x, ((0, 0), *pads, (0, 0)))


class SqueezeExcite(nn.Module):
  """Channel gates from the average over the pixels (arXiv:1709.01507).

  Attributes:
    width: number of hidden channels.
    dtype: compute dtype.
    activation: of the hidden channels.
    gate: of the output.
  """

  width: int
  dtype: Dtype = None
  activation: Callable[[Array], Array] = nn.relu
  gate: Callable[[Array], Array] = nn.sigmoid

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Scales the channels; parameters `reduce` and `expand`."""
    conv = functools.partial(Conv, use_bias=True, dtype=self.dtype)
    y = x.mean((1, 2), keepdims=True)
    y = self.activation(conv(self.width, name="reduce")(y))
    return x * self.gate(conv(x.shape[-1], name="expand")(y))


def layer_norm(
  eps: float,
  dtype: Dtype,
  name: str | None = None,
  scale_init: initializers.Initializer = initializers.ones,
) -> nn.Module:
  """Layer normalisation over the last axis, variance in two passes."""
  return nn.LayerNorm(
    epsilon=eps,
    dtype=dtype,
    scale_init=scale_init,
    use_fast_variance=False,
    name=name,
  )


def rms_norm(
  eps: float,
  dtype: Dtype,
  name: str | None = None,
  scale_init: initializers.Initializer = initializers.ones,
) -> nn.Module:
  """Division by the root mean square of the last axis (arXiv:1910.07467)."""
  return nn.RMSNorm(
    epsilon=eps,
    dtype=dtype,
    scale_init=scale_init,
    use_fast_variance=False,
    name=name,
  )


NORMS = {"layer": layer_norm, "rms": rms_norm}
"""Normalisations over the last axis, by name."""


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, as `nn.BatchNorm2d`.

  Under `jit` with a sharded batch the means are global ones. Statistics are
  float32, or float64 if the input is.

  Attributes:
    dtype: dtype of the output; None promotes input and parameters.
    scale_init: initialiser of the scale.
    bias_init: initialiser of the bias.
    momentum: weight of the new batch in the running statistics.
    eps: added to the variance.
  """

  dtype: Dtype = None
  scale_init: initializers.Initializer = initializers.ones
  momentum: float = 0.1
  eps: float = 1e-5
  bias_init: initializers.Initializer = initializers.zeros

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n *b c"],
    *,
    train: bool,
    group: int = 0,
    one_sum: bool = False,
  ) -> Float[Array, "n *b c"]:
    """Normalises by the batch (`train`) or by the running statistics.

    Args:
      x: the batch.
      train: which statistics.
      group: images, neighbours in the batch, that share statistics; 0: all.
        Running statistics move towards the mean of the groups'.
      one_sum: see `moments_in_one_sum`.

    Raises:
      ValueError: `train` with a single value per channel.
    """
    width = (x.shape[-1],)
    scale = parameter(self, "scale", self.scale_init, width)
    bias = parameter(self, "bias", self.bias_init, width)
    old_mean = self.variable("batch_stats", "mean", jnp.zeros, width)
    old_var = self.variable("batch_stats", "var", jnp.ones, width)
    out_dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = old_mean.value, old_var.value
    if train:
      groups = _grouped(x, group)
      if len(groups) == 1 and not one_sum:
        whole: tuple[Array, tuple[Array, Array]]
        whole = normalise.by_batch(x, scale, bias, self.eps)
        y, found = whole
        found = found[0][None], found[1][None]
      else:
        found = moments_in_one_sum(groups, mean) if one_sum else moments(groups)
        mean, var = (_of_images(each, x) for each in found)
        y = normalise.by_moments(x, mean, var, scale, bias, self.eps)
      if not self.is_initializing():
        count = groups[0].size // groups.shape[-1]
        self._update(old_mean, found[0].mean(0))
        self._update(old_var, found[1].mean(0) * (count / (count - 1)))
    else:
      y = normalise.by_moments(x, mean, var, scale, bias, self.eps)
    return y.astype(out_dtype)

  def _update(self, running: nn.Variable, new: Array) -> None:
    old = running.value
    running.value = old + self.momentum * (new - old).astype(old.dtype)


def batch_norms(
  *, group: int, one_sum: bool
) -> contextlib.AbstractContextManager[None]:
  """Sets these arguments of every `BatchNorm` that is called inside the block.

  Args:
    group: images, neighbours in the batch, that share statistics; 0: all.
    one_sum: see `moments_in_one_sum`.
  """

  def within(
    call: Callable[..., Array],
    args: tuple[Array, ...],
    kwargs: dict[str, bool],
    context: nn.module.InterceptorContext,
  ) -> Array:
    own = isinstance(context.module, BatchNorm)
    if own and context.method_name == "__call__":
      return call(*args, **kwargs, group=group, one_sum=one_sum)
    return call(*args, **kwargs)

  return nn.intercept_methods(within)


Moments = tuple[Float[Array, "g c"], Float[Array, "g c"]]
"""Mean and biased variance of every channel, in every group."""


def moments(groups: Float[Array, "g n *b c"]) -> Moments:
  """The moments over groups of images, in two passes."""
  axes = tuple(range(1, groups.ndim - 1))
  mean = groups.mean(axes, keepdims=True)
  var = jnp.square(groups - mean).mean(axes)
  return mean.reshape(var.shape), var


def moments_in_one_sum(
  groups: Float[Array, "g n *b c"], near: Float[Array, " c"]
) -> Moments:
  """The same, for groups that are spread over devices.

  Every image has its own moments first; devices then wait for each other once,
  to add up two numbers per channel, and once in the backward pass. Two passes
  make them wait three times as often.

  Args:
    groups: of images.
    near: subtracted from the means of images before they are squared; about
      (mean - near)^2 / var of the digits of `var` are lost to rounding.
  """
  near = jax.lax.stop_gradient(near)
  pixels = tuple(range(2, groups.ndim - 1))
  mean = groups.mean(pixels, keepdims=True)
  spread = jnp.square(groups - mean).mean(pixels)
  shifted = mean.reshape(spread.shape) - near
  both = jnp.stack([shifted, spread + jnp.square(shifted)], 2).mean(1)
  # Rounding could make the variance of a constant channel negative.
  var = jnp.maximum(both[:, 1] - jnp.square(both[:, 0]), 0)
  return both[:, 0] + near, var


def _grouped(x: Float[Array, "n *b c"], group: int) -> Float[Array, "g m *b c"]:
  """Groups of `group` neighbours; 0 is one of all.

  Raises:
    ValueError: a group has a single value per channel.
  """
  groups = x.reshape(-1, group or x.shape[0], *x.shape[1:])
  if groups[0].size == x.shape[-1]:
    raise ValueError(
      f"batch normalisation in training mode got the shape {x.shape}: one "
      "value per channel has no variance. Use a larger batch or larger images"
      + (
        f", or a larger group than batch_norm_group={group}." if group else "."
      )
    )
  return groups


def _of_images(
  groups: Float[Array, "g c"], x: Float[Array, "n *b c"]
) -> Float[Array, "#n *b c"]:
  """What the images of every group share, for each of them."""
  if len(groups) > 1:
    groups = jnp.repeat(groups, len(x) // len(groups), axis=0)
  return groups.reshape(-1, *[1] * (x.ndim - 2), x.shape[-1])


class DropPath(nn.Module):
  """Stochastic depth per example (arXiv:1603.09382), scaled by 1 / keep.

  Attributes:
    rate: probability that an example loses the branch.
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, "n ..."], *, train: bool
  ) -> Float[Array, "n ..."]:
    """Drops in training only; reads the rng collection 'dropout'."""
    layer = nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)))
    return layer(x, deterministic=not train)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n y x c"]:
  """3x3 max pooling of stride 2; the padding of 1 never wins."""
  return pooling.max_pool(x, pooling.Pool(size=3, stride=2, padding=1))


def global_pool(x: Float[Array, "n h w c"], kind: str) -> Float[Array, "n d"]:
  """One of `POOLS` over the pixels; 'catavgmax' doubles the channels."""
  average, largest = x.mean((1, 2)), x.max((1, 2))
  pooled = {
    "avg": average,
    "max": largest,
    "avgmax": (average + largest) / 2,
    "catavgmax": jnp.concatenate([average, largest], -1),
  }
  return pooled[kind]


def pool_factor(kind: str) -> int:
  """Channels that `global_pool` emits per channel."""
  return 2 if kind == "catavgmax" else 1
