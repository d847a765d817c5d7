"""Layers of detectors, with the initialisation that they are trained from.

Biases start at 0. Kernels as in Detectron2: N(0, std^2) in proposals and
predictors, `XAVIER` in pyramids and linear layers, `MSRA` in masks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from flax import linen as nn
from flax.linen import dtypes
from jax import numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

XAVIER = initializers.variance_scaling(1.0, "fan_in", "uniform")
"""U(-1, 1) sqrt(3 / fan_in)."""

MSRA = layers.kaiming_fan_out


def conv(
  features: int,
  size: int = 1,
  *,
  init: initializers.Initializer,
  dtype: layers.Dtype,
  name: str | None = None,
) -> layers.Conv:
  """A convolution with bias.

  Args:
    features: number of output channels.
    size: width of the window.
    init: of the kernel.
    dtype: compute dtype.
    name: of its parameters.
  """
  return layers.Conv(
    features, size, dtype=dtype, use_bias=True, kernel_init=init, name=name
  )


def wide(x: Array) -> Array:
  """In float32 or wider: what losses and boxes are computed from."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Deconv(nn.Module):
  """Transposed 2x2 convolution of stride 2: every position becomes four.

  Attributes:
    features: number of output channels.
    dtype: compute dtype.
    kernel_init: of the kernel (2, 2, inputs, features).
    bias_init: of the bias.
  """

  features: int
  dtype: layers.Dtype = None
  # N(0, 2 / (4 inputs)): Detectron2 calls that the fan out of the layer.
  kernel_init: initializers.Initializer = initializers.variance_scaling(
    2.0, "fan_in", "normal"
  )
  bias_init: initializers.Initializer = initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Applies it; height and width double."""
    n, height, width, channels = x.shape
    shape = (2, 2, channels, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
    x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    # Windows do not overlap, so each output pixel is one product.
    y = jnp.einsum("nhwc,yxcd->nhywxd", x, kernel)
    return y.reshape(n, 2 * height, 2 * width, self.features) + bias


def with_running_statistics(
  call: Callable[..., Array],
  args: tuple[Array, ...],
  kwargs: Mapping[str, bool],
  context: nn.module.InterceptorContext,
) -> Array:
  """A BatchNorm runs as in evaluation, whatever it is told."""
  own = isinstance(context.module, layers.BatchNorm)
  if own and context.method_name == "__call__":
    kwargs = {**kwargs, "train": False}
  return call(*args, **kwargs)


def per_region(
  number: int,
) -> contextlib.AbstractContextManager[None]:
  """Inside the block a batch has so many regions of every image.

  Groups of images that share statistics, see `layers.batch_norms`, are then
  groups of so many times as many rows.
  """

  def scaled(
    call: Callable[..., Array],
    args: tuple[Array, ...],
    kwargs: Mapping[str, bool | int],
    context: nn.module.InterceptorContext,
  ) -> Array:
    own = isinstance(context.module, layers.BatchNorm)
    if own and context.method_name == "__call__":
      kwargs = {**kwargs, "group": kwargs.get("group", 0) * number}
    return call(*args, **kwargs)

  return nn.intercept_methods(scaled)
