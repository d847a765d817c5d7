"""Blocks of mobile networks, and the strings that describe them.

A network is a stem convolution and groups of blocks; each group is a string
of its `arch_def`, as in timm: blocks 'KIND_rR_kK_sS[_eE]_cC[...]' with a space
between them.

  KIND  ds   depthwise, pointwise (arXiv:1704.04861)
        dsa  'ds' with a last activation and without a shortcut
        ir   pointwise, depthwise, pointwise (arXiv:1801.04381)
        er   full convolution, pointwise (arXiv:2104.00298)
        cn   full convolution with activation; a shortcut only with '_skip'
  r, k, s, e, c   repeats, window, stride of the group, expansion, channels
  fcN   the expansion of 'er' counts from N channels
  seX   squeeze-and-excitation (arXiv:1709.01507) of the width X times that of
        the block's input (MobileNetV3: of its depthwise convolution)
  nre, nr6, nhs, nsw   another activation: ReLU, ReLU6, hard-swish, SiLU
  noskip, skip   without, or with, a shortcut

Such strings are timm's, in the order given here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

from flax import linen as nn
from flax.typing import Initializer
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "relu": nn.relu,
  "relu6": nn.relu6,
  "silu": nn.silu,
  "swish": nn.silu,
  "hard_swish": nn.hard_swish,
}
"""Activations, named as in timm."""

_CODES = {"re": "relu", "r6": "relu6", "hs": "hard_swish", "sw": "silu"}
_BLOCK = re.compile(
  r"(?P<kind>dsa?|ir|er|cn)_r(?P<repeat>[1-9]\d*)_k(?P<size>\d*[13579])"
  r"_s(?P<stride>[12])(_e(?P<expansion>\d+(\.\d+)?))?_c(?P<features>[1-9]\d*)"
  r"(_fc(?P<base>[1-9]\d*))?(_se(?P<se>0\.\d+|1))?"
  r"(_n(?P<act>re|r6|hs|sw))?(_(?P<skip>skip|noskip))?"
)


class Spec(NamedTuple):
  """Blocks of an `arch_def`.

  Attributes:
    kind: 'ds', 'ir', 'er' or 'cn'.
    repeat: number of blocks.
    size: width of the window.
    stride: stride of the group, used by its first block.
    expansion: width between the convolutions over that of the input.
    features: number of output channels, before scaling.
    base: what `expansion` is relative to, before scaling; 0 is the input.
    se: width of squeeze-and-excitation, relative; 0 leaves it out.
    act: activation; '' is the network's.
    last_act: whether it also follows the last convolution.
    skip: have a shortcut where the shapes agree.
  """

  kind: str
  repeat: int
  size: int
  stride: int
  expansion: float
  features: int
  base: int
  se: float
  act: str
  last_act: bool
  skip: bool


@functools.cache
def decode(group: str) -> tuple[Spec, ...]:
  """What a string of an `arch_def` says.

  Raises:
    ValueError: one of its words is no block, or it has none.
  """
  return tuple(map(_decode, group.split() or [""]))


def _decode(word: str) -> Spec:
  match = _BLOCK.fullmatch(word)
  if match is None:
    raise ValueError(
      f"arch_def has {word!r}; a block is KIND_rR_kK_sS[_eE]_cC[_fcN][_seX]"
      "[_nA][_skip|_noskip] in this order: KIND one of ds, dsa, ir, er, cn, K "
      "odd, S 1 or 2, A one of re, r6, hs, sw; 'ir_r2_k3_s2_e6_c24_se0.25'"
    )
  kind, skip = match["kind"], match["skip"]
  wide = kind in ("ir", "er")
  return Spec(
    kind="ds" if kind == "dsa" else kind,
    repeat=int(match["repeat"]),
    size=int(match["size"]),
    stride=int(match["stride"]),
    expansion=float(match["expansion"] or 1) if wide else 1.0,
    features=int(match["features"]),
    base=int(match["base"] or 0),
    se=float(match["se"] or 0),
    act=_CODES.get(match["act"], ""),
    last_act=kind in ("dsa", "cn"),
    skip=skip == "skip" if kind == "cn" else kind != "dsa" and skip != "noskip",
  )


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
  """

  act: str
  same: bool
  eps: float
  dtype: layers.Dtype
  init: Callable[[int], Initializer]
  se_act: str = ""
  gate: Callable[[Array], Array] = nn.sigmoid


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


class Block(nn.Module):
  """One block of any kind.

  Attributes:
    kind: 'ds', 'ir', 'er' or 'cn', see the module's docstring.
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

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Branch, plus the input if there is a shortcut."""
    act, steps = ACTIVATIONS[self.act], self.steps()
    y = x
    for i, (name, fields) in enumerate(steps, 1):
      last = i == len(steps)
      if last and self.se_width:
        y = self._squeeze(y)
      y = conv_norm(y, self.style, (name, f"bn{i}"), train=train, **fields)
      y = y if last and not self.last_act else act(y)
    same = self.stride == 1 and x.shape[-1] == self.features
    if not (self.skip and same):
      return y
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + x

  def steps(self) -> list[tuple[str, layers.ConvFields]]:
    """Name and fields of each convolution."""
    window: layers.WindowFields = {
      "size": self.size,
      "stride": self.stride,
      "dilation": self.dilation,
    }
    last: layers.ConvFields = {"features": self.features}
    middle: layers.ConvFields = {"features": self.width}
    depthwise: layers.ConvFields = {**middle, "groups": self.width, **window}
    steps: dict[str, list[tuple[str, layers.ConvFields]]] = {
      "ds": [("conv_dw", depthwise), ("conv_pw", last)],
      "ir": [("conv_pw", middle), ("conv_dw", depthwise), ("conv_pwl", last)],
      "er": [("conv_exp", {**middle, **window}), ("conv_pwl", last)],
      "cn": [("conv", {**last, **window})],
    }
    return steps[self.kind]

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
