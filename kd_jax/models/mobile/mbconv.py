"""Blocks of mobile networks; `words` says how a network names them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

from flax import linen as nn
from flax.typing import Initializer
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convs import multi_query
from kd_jax.models.convs.conv_norm import ACTIVATIONS as _EVERY

ACTIVATIONS = {k: v for k, v in _EVERY.items() if k}
"""Activations, named as in timm."""


@functools.cache
def goog_init(groups: int) -> Initializer:
  """N(0, 2 / (k k c_out / groups)), for a kernel in HWIO."""

  def init(
    key: Array, shape: Sequence[int], dtype: layers.Dtype = "float32"
  ) -> Array:
    fan_out = shape[0] * shape[1] * shape[3] // groups
    return initializers.normal(math.sqrt(2 / fan_out))(key, shape, dtype)

  return init


@dataclasses.dataclass(frozen=True)
class Style:
  """What the layers of one network share.

  Attributes:
    act: activation of the stem.
    same: pad as TensorFlow does where the stride is 2.
    eps: added to the variance in normalisation.
    dtype: compute dtype.
    init: from the number of groups to the initialiser of a convolution.
    se_act: activation inside squeeze-and-excitation; '' is the block's.
    gate: gate of squeeze-and-excitation.
    aa: pooling in place of strides, see `strides.POOLS`; '' leaves strides.
    scale: first value of the scale of a branch of 'uir' and 'mqa'; 0 leaves
      it out.
  """

  act: str
  same: bool
  eps: float
  dtype: layers.Dtype
  init: Callable[[int], Initializer]
  se_act: str = ""
  gate: Callable[[Array], Array] = nn.sigmoid
  aa: str = ""
  scale: float = 0.0


def conv_norm(
  x: Float[Array, "n h w c"],
  style: Style,
  names: tuple[str, str],
  *,
  train: bool,
  **fields: Unpack[layers.ConvFields],
) -> Float[Array, "n y x d"]:
  """A convolution and its normalisation, as submodules of the caller.

  Args:
    x: maps.
    style: see there.
    names: of the two submodules.
    train: normalise by the batch.
    **fields: of `layers.Conv`.

  Returns:
    Maps without activation.
  """
  conv = layers.Conv(
    **fields,
    # With stride 1 the symmetric padding is TensorFlow's, and cheaper.
    same=style.same and fields.get("stride", 1) > 1,
    dtype=style.dtype,
    kernel_init=style.init(fields.get("groups", 1)),
    name=names[0],
  )
  norm = layers.BatchNorm(style.dtype, eps=style.eps, name=names[1])
  return norm(conv(x), train=train)


class Step(NamedTuple):
  """One convolution of a block.

  Attributes:
    names: of the convolution and its normalisation.
    act: whether the activation follows.
    fields: of `layers.Conv`.
  """

  names: tuple[str, str]
  act: bool
  fields: layers.ConvFields


class Block(nn.Module):
  """One block of any kind.

  Attributes:
    kind: see `words`; not 'dsa', which is 'ds' here.
    features: number of output channels.
    width: number of channels between the convolutions.
    size: width of the window.
    stride: stride of the convolution that has the window.
    dilation: its dilation.
    se_width: hidden channels of squeeze-and-excitation; 0 leaves it out.
    act: activation.
    last_act: whether it also follows the last convolution.
    skip: add the input where the shapes agree.
    drop_path: probability of dropping the branch.
    style: what it shares with other blocks.
    start: see `words.Spec`.
    base: number of input channels; only 'uir' asks.
    heads: see `words.Spec`.
    head_dim: see `words.Spec`.
    kv_stride: see `words.Spec`.
  """

  kind: str
  features: int
  width: int
  size: int
  stride: int
  dilation: int
  se_width: int
  act: str
  last_act: bool
  skip: bool
  drop_path: float
  style: Style
  start: int = 0
  base: int = 0
  heads: int = 0
  head_dim: int = 0
  kv_stride: int = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Branch, plus the input if there is a shortcut."""
    branch = self._attend if self.kind == "mqa" else self._convolve
    y = branch(x, train)
    if self.style.scale and self.kind in ("uir", "mqa"):
      y = transformer.LayerScale(self.style.scale, name="layer_scale")(y)
    same = self.stride == 1 and x.shape[-1] == self.features
    if not (self.skip and same):
      return y
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + x

  def _convolve(self, x: Array, train: bool) -> Array:
    act, steps = ACTIVATIONS[self.act], self.steps()
    for i, step in enumerate(steps, 1):
      if i == len(steps) and self.se_width:
        x = self._squeeze(x)
      fields: layers.ConvFields = step.fields
      pooled = 1
      if self.style.aa:
        pooled = fields.get("stride", 1)
        fields = {**step.fields, "stride": 1}
      x = conv_norm(x, self.style, step.names, train=train, **fields)
      x = act(x) if step.act else x
      x = x if pooled == 1 else strides.POOLS[self.style.aa](x)
    return x

  def _attend(self, x: Array, train: bool) -> Array:
    style = self.style
    norm = layers.BatchNorm(style.dtype, eps=style.eps, name="norm")
    attention = multi_query.MultiQueryAttention(
      features=self.features,
      heads=self.heads,
      head_dim=self.head_dim,
      kv_stride=self.kv_stride,
      size=self.size,
      dilation=self.dilation,
      same=style.same,
      eps=style.eps,
      dtype=style.dtype,
      name="attn",
    )
    return attention(norm(x, train=train), train=train)

  def steps(self) -> list[Step]:
    """The convolutions; none for 'mqa'."""
    if self.kind == "uir":
      return self._universal()
    window = self._window(self.size)
    last: layers.ConvFields = {"features": self.features}
    middle: layers.ConvFields = {"features": self.width}
    depthwise: layers.ConvFields = {**middle, "groups": self.width, **window}
    steps: dict[str, list[tuple[str, layers.ConvFields]]] = {
      "ds": [("conv_dw", depthwise), ("conv_pw", last)],
      "ir": [("conv_pw", middle), ("conv_dw", depthwise), ("conv_pwl", last)],
      "er": [("conv_exp", {**middle, **window}), ("conv_pwl", last)],
      "cn": [("conv", {**last, **window})],
      "mqa": [],
    }
    own = steps[self.kind]
    count = len(own)
    return [
      Step((name, f"bn{i}"), i < count or self.last_act, fields)
      for i, (name, fields) in enumerate(own, 1)
    ]

  def _universal(self) -> list[Step]:
    steps: list[tuple[str, bool, layers.ConvFields]] = []
    if self.start:
      window = self._window(self.start)
      if self.size:
        window["stride"] = 1
      first: layers.ConvFields = {
        "features": self.base,
        "groups": self.base,
        **window,
      }
      steps.append(("dw_start", False, first))
    steps.append(("pw_exp", True, {"features": self.width}))
    if self.size:
      middle: layers.ConvFields = {"features": self.width, "groups": self.width}
      steps.append(("dw_mid", True, {**middle, **self._window(self.size)}))
    steps.append(("pw_proj", False, {"features": self.features}))
    return [Step((n, f"{n}_bn"), act, fields) for n, act, fields in steps]

  def _window(self, size: int) -> layers.WindowFields:
    return {"size": size, "stride": self.stride, "dilation": self.dilation}

  def _squeeze(self, x: Array) -> Array:
    act = ACTIVATIONS[self.style.se_act or self.act]
    gate, dtype = self.style.gate, self.style.dtype
    return layers.SqueezeExcite(self.se_width, dtype, act, gate, name="se")(x)


class Stage(nn.Module):
  """Blocks; the stem has a strided convolution in front of them.

  Attributes:
    blocks: (name, fields) of each `Block`.
    stem: fields of the first convolution, or None.
    style: what the blocks share.
  """

  blocks: Sequence[tuple[str, dict[str, Any]]]
  stem: layers.ConvFields | None
  style: Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.stem is not None:
      x = conv_norm(x, self.style, ("conv", "bn"), train=train, **self.stem)
      x = ACTIVATIONS[self.style.act](x)
    for name, fields in self.blocks:
      x = Block(**fields, style=self.style, name=name)(x, train=train)
    return x


class Neck(nn.Module):
  """The last 1x1 convolution and its normalisation, before the activation.

  Attributes:
    features: number of output channels.
    style: what it shares with the blocks.
  """

  features: int
  style: Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """No activation."""
    fields = {"features": self.features}
    return conv_norm(x, self.style, ("conv", "bn"), train=train, **fields)
