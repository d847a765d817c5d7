"""Convolution with batch normalisation, alone or in parallel branches.

Without training both are one convolution with a bias. A network with the field
`fused` consists of those: `Mergeable` modules compute its tensors from the
ones they were trained with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "": lambda x: x,
  "relu": nn.relu,
  "relu6": nn.relu6,
  "silu": nn.silu,
  "swish": nn.silu,
  "hard_swish": nn.hard_swish,
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}
"""Activations, named as in timm; '' is none."""

torch_conv_init = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for convolutions: U(-1, 1) / sqrt(k k c_in / groups)."""


def torch_init(groups: int) -> initializers.Initializer:
  """`torch_conv_init`, whatever the number of groups."""
  del groups
  return torch_conv_init


def _normal(mean: float, std: float) -> initializers.Initializer:
  plain = initializers.normal(std)

  def init(
    key: Array,
    shape: Any,
    dtype: Any = jnp.float32,
    out_sharding: Any = None,
  ) -> Array:
    return mean + plain(key, shape, dtype, out_sharding)

  return init


Tensors = Mapping[str, np.ndarray]
"""{path below a module: float64 array}, of both collections: 'bn/scale' and
'bn/bias' are parameters, 'bn/mean' and 'bn/var' statistics."""

Affine = tuple[np.ndarray, np.ndarray]
"""Kernel (HWIO) and bias of a convolution, in float64."""


@dataclasses.dataclass(frozen=True)
class Style:
  """What the convolutions of one network share.

  Attributes:
    act: activation, one of `ACTIVATIONS`.
    dtype: compute dtype.
    eps: added to the variance in normalisation.
    fused: the network is the merged one.
    init: from the number of groups to the initialiser of kernels.
    spread: normalisation starts from scales N(spread, spread) and biases
      N(0, spread); 0 is 1 and 0.
  """

  act: str = "relu"
  dtype: layers.Dtype = None
  eps: float = 1e-5
  fused: bool = False
  init: Callable[[int], initializers.Initializer] = torch_init
  spread: float = 0.0

  def norm(self, name: str, scale: float = 1.0) -> layers.BatchNorm:
    """A batch normalisation whose scales begin at `scale`."""
    scales, biases = initializers.constant(scale), initializers.zeros
    if self.spread:
      scales = _normal(self.spread, self.spread)
      biases = initializers.normal(self.spread)
    return layers.BatchNorm(
      self.dtype, scales, eps=self.eps, bias_init=biases, name=name
    )

  def activate(self, x: Float[Array, ...]) -> Float[Array, ...]:
    """The activation."""
    return ACTIVATIONS[self.act](x)


class Mergeable(nn.Module):
  """A module that is a single layer, `merged`, in a fused network."""

  def merge(self, tensors: Tensors) -> dict[str, np.ndarray]:
    """The parameters below it in the fused network.

    Args:
      tensors: of the network that was trained, below this module.

    Returns:
      {'merged/kernel': array, 'merged/bias': array}.
    """
    raise NotImplementedError


class ConvNorm(Mergeable):
  """`conv` and `bn`.

  Attributes:
    features: number of output channels.
    style: see there.
    size: width of the window.
    stride: step in pixels.
    dilation: distance of neighbouring weights.
    groups: number of channel groups.
    act: whether the activation follows.
    scale: first value of the scale of the normalisation.
  """

  features: int
  style: Style
  size: int = 1
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  act: bool = False
  scale: float = 1.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Convolution, normalisation and perhaps an activation."""
    style = self.style
    conv = functools.partial(
      layers.Conv,
      self.features,
      self.size,
      self.stride,
      self.dilation,
      self.groups,
      dtype=style.dtype,
      kernel_init=style.init(self.groups),
    )
    if style.fused:
      y = conv(use_bias=True, name="merged")(x)
    else:
      norm = style.norm("bn", self.scale)
      y = norm(conv(name="conv")(x), train=train)
    return style.activate(y) if self.act else y

  def merge(self, tensors: Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    return merged(folded(tensors, "", self.style.eps))


class Branches(Mergeable):
  """The sum of convolutions of one input, each with its normalisation.

  Of RepVGG (arXiv:2101.03697), MobileOne (2206.04040) and RepLKNet
  (2203.06717).

  Attributes:
    features: number of output channels.
    style: see there.
    branches: name and window of each; all have the same stride.
    identity: add a branch `identity`, which only normalises the input.
    stride: step in pixels.
    dilation: distance of neighbouring weights.
    groups: number of channel groups.
    drop_path: probability of dropping all but the identity.
  """

  features: int
  style: Style
  branches: tuple[tuple[str, int], ...]
  identity: bool = False
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  drop_path: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The sum; no activation."""
    style, window = self.style, (self.stride, self.dilation, self.groups)
    if style.fused:
      conv = layers.Conv(
        self.features,
        max(size for _, size in self.branches),
        *window,
        dtype=style.dtype,
        use_bias=True,
        name="merged",
      )
      return conv(x)
    parts = [
      ConvNorm(self.features, style, size, *window, name=name)(x, train=train)
      for name, size in self.branches
    ]
    y = sum(parts[1:], parts[0])
    if not self.identity:
      return y
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + style.norm("identity")(x, train=train)

  def merge(self, tensors: Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    eps = self.style.eps
    parts = [folded(tensors, f"{name}/", eps) for name, _ in self.branches]
    if self.identity:
      like = parts[0][0]
      kernel = identity_kernel(1, like.shape[2], like.shape[3])
      norm = {
        f"bn/{leaf}": tensors[f"identity/{leaf}"]
        for leaf in ("scale", "bias", "mean", "var")
      }
      parts.append(folded({**norm, "conv/kernel": kernel}, "", eps))
    return merged(total(parts))


def folded(tensors: Tensors, prefix: str, eps: float) -> Affine:
  """'conv' followed by 'bn'.

  Args:
    tensors: see there.
    prefix: of the two names; 'conv/bias' need not be there.
    eps: of the normalisation.
  """
  kernel = tensors[f"{prefix}conv/kernel"]
  bias = tensors.get(f"{prefix}conv/bias", np.zeros(kernel.shape[-1]))
  norm = {
    leaf: tensors[f"{prefix}bn/{leaf}"]
    for leaf in ("scale", "bias", "mean", "var")
  }
  gain = norm["scale"] / np.sqrt(norm["var"] + eps)
  return kernel * gain, (bias - norm["mean"]) * gain + norm["bias"]


def total(parts: list[Affine]) -> Affine:
  """The sum; smaller windows lie in the middle of the largest."""
  size = max(len(kernel) for kernel, _ in parts)
  kernel, bias = 0.0, 0.0
  for part, shift in parts:
    side = (size - len(part)) // 2
    kernel = kernel + np.pad(part, ((side, side), (side, side), (0, 0), (0, 0)))
    bias = bias + shift
  return np.asarray(kernel), np.asarray(bias)


def identity_kernel(size: int, width: int, features: int) -> np.ndarray:
  """The convolution that changes nothing.

  Args:
    size: of the window.
    width: input channels per group.
    features: output channels.
  """
  kernel = np.zeros((size, size, width, features))
  out = np.arange(features)
  kernel[size // 2, size // 2, out % width, out] = 1
  return kernel


def merged(affine: Affine) -> dict[str, np.ndarray]:
  """See `Mergeable.merge`."""
  return {"merged/kernel": affine[0], "merged/bias": affine[1]}
