"""Blocks and stems of the family, with timm's feature maps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, strides
from kd_jax.models.byob import mobilevit
from kd_jax.models.convs import conv_norm, gates, mobile_one

SHORTCUTS = ("conv1x1", "avg", "")


class Step(NamedTuple):
  """A convolution of a block.

  Attributes:
    name: here, and in timm.
    features: number of output channels.
    size: width of the window.
    first: it has the stride of the block.
    grouped: it has the groups of the block.
    gate: the gate of the block follows.
  """

  name: str
  features: int
  size: int
  first: bool = False
  grouped: bool = False
  gate: bool = False


class Block(nn.Module):
  """One block; the activation of its sum is the caller's.

  Attributes:
    kind: see `words`.
    features: number of output channels.
    width: channels between the convolutions.
    size: width of the window.
    stride: see `words`.
    dilation: of the first and of later convolutions.
    group: channels per group; 0 is one group.
    branches: see `words`.
    extra: see `words`.
    gate: a name of `gates.KINDS`.
    gate_fields: `ratio` and `divisor` of the gate.
    shortcut: 'conv1x1', 'avg' or '': what the shortcut is where shapes differ.
    drop_path: probability of dropping the branch.
    style: see `conv_norm`.
  """

  kind: str
  features: int
  width: int
  size: int
  stride: int
  dilation: tuple[int, int]
  group: int
  branches: int
  extra: bool
  gate: str
  gate_fields: dict[str, Any]
  shortcut: str
  drop_path: float
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The sum, before its activation."""
    if self.kind in ("rep", "one"):
      return self._merged(x, train)
    short = self._short(x, train)
    y, steps = x, self._steps()
    for i, step in enumerate(steps):
      y = self._conv(y, step, i, i == len(steps) - 1 and short is not None)(
        y, train=train
      )
      y = self._gate(y, step.gate)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y if short is None else y + short

  def _steps(self) -> list[Step]:
    out, mid, size = self.features, self.width, self.size
    if self.kind == "basic":
      return [
        Step("conv1_kxk", mid, size, first=True),
        Step("conv2_kxk", out, size, grouped=True, gate=True),
      ]
    if self.kind == "edge":
      return [
        Step("conv1_kxk", mid, size, first=True, grouped=True, gate=True),
        Step("conv2_1x1", out, 1),
      ]
    if self.kind == "dark":
      return [
        Step("conv1_1x1", mid, 1),
        Step("conv2_kxk", out, size, first=True, grouped=True, gate=True),
      ]
    extra = self.extra
    middle = Step(
      "conv2_kxk", mid, size, first=True, grouped=True, gate=not extra
    )
    again = Step("conv2b_kxk", mid, size, grouped=True, gate=True)
    return [
      Step("conv1_1x1", mid, 1),
      middle,
      *([again] if extra else []),
      Step("conv3_1x1", out, 1),
    ]

  def _conv(
    self, x: Array, step: Step, i: int, zero: bool
  ) -> conv_norm.ConvNorm:
    # timm counts the groups of all blocks by the inner width.
    groups = self.width // self.group if self.group else 1
    wide = step.size > 1
    return conv_norm.ConvNorm(
      step.features,
      self.style,
      step.size,
      self.stride if step.first else 1,
      (self.dilation[not step.first] if wide else 1),
      groups if step.grouped else 1,
      act=i < len(self._steps()) - 1,
      scale=0.0 if zero else 1.0,
      name=step.name,
    )

  def _gate(self, x: Array, here: bool) -> Array:
    if not (self.gate and here):
      return x
    name = "attn_last" if self.kind in ("basic", "dark") else "attn"
    fields = {**self.gate_fields, "dtype": self.style.dtype}
    return gates.gate(self.gate, x.shape[-1], name, **fields)(x)

  def _short(self, x: Array, train: bool) -> Array | None:
    same = self.stride == 1 and x.shape[-1] == self.features
    if same and self.dilation[0] == self.dilation[1]:
      return x
    if not self.shortcut:
      return None
    stride, name = self.stride, "shortcut"
    if self.shortcut == "avg":
      x = strides.average_down(x, stride, self.dilation[0])
      stride, name = 1, "shortcut_avg"
    conv = conv_norm.ConvNorm(
      self.features, self.style, stride=stride, name=name
    )
    return conv(x, train=train)

  def _merged(self, x: Array, train: bool) -> Array:
    groups = x.shape[-1] // self.group if self.group else 1
    shared = {
      "stride": self.stride,
      "groups": groups,
      "identity": self.dilation[0] == self.dilation[1],
      "drop_path": self.drop_path,
    }
    if self.kind == "rep":
      shared["dilation"] = self.dilation[0]
      x = rep(x, self.features, self.style, train=train, **shared)
    else:
      block = mobile_one.MobileOne(
        self.features,
        self.style,
        self.size,
        branches=self.branches,
        act=False,
        name="one",
        **shared,
      )
      x = block(x, train=train)
    return self._gate(x, True)


def rep(
  x: Float[Array, "n h w c"],
  features: int,
  style: conv_norm.Style,
  *,
  train: bool,
  stride: int,
  identity: bool = True,
  **fields: Any,
) -> Float[Array, "n y x d"]:
  """The branches of RepVGG, as the submodule `rep` of the caller.

  Args:
    x: maps.
    features: number of output channels.
    style: see `conv_norm`.
    train: normalise by the batch.
    stride: step in pixels.
    identity: have a branch without a convolution where shapes agree.
    **fields: of `conv_norm.Branches`.
  """
  branches = conv_norm.Branches(
    features,
    dataclasses.replace(style, spread=0.1),
    (("conv_kxk", 3), ("conv_1x1", 1)),
    identity=identity and stride == 1 and x.shape[-1] == features,
    stride=stride,
    name="rep",
    **fields,
  )
  return branches(x, train=train)


class Stem(nn.Module):
  """The first convolutions, at a stride of 2.

  Attributes:
    kind: 'rep', 'one', or 'convs'.
    widths: output channels of the convolutions.
    bare: how many of them lack normalisation and activation.
    size: width of their windows.
    named: they are `conv1`, ...; else the only one is `conv`.
    gate: gate of 'rep' and 'one', see `Block`.
    gate_fields: see `Block`.
    style: see `conv_norm`.
  """

  kind: str
  widths: tuple[int, ...]
  bare: int
  size: int
  named: bool
  gate: str
  gate_fields: dict[str, Any]
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """An activated map."""
    style, width = self.style, self.widths[-1]
    if self.kind in ("rep", "one"):
      if self.kind == "rep":
        x = rep(x, width, style, train=train, stride=2)
      else:
        one = mobile_one.MobileOne(width, style, 3, 2, act=False, name="one")
        x = one(x, train=train)
      if self.gate:
        fields = {**self.gate_fields, "dtype": style.dtype}
        x = gates.gate(self.gate, width, "attn", **fields)(x)
      return style.activate(x)
    style = dataclasses.replace(style, fused=False)
    for i, features in enumerate(self.widths):
      stride, name = 1 if i else 2, f"conv{i + 1}" if self.named else "conv"
      if i < self.bare:
        init = style.init(1)
        fields = {"dtype": style.dtype, "kernel_init": init, "name": name}
        x = layers.Conv(features, self.size, stride, **fields)(x)
        continue
      conv = conv_norm.ConvNorm(
        features, style, self.size, stride, act=True, name=name
      )
      x = conv(x, train=train)
    return x


class Stage(nn.Module):
  """What belongs to one of `types.STAGES`: blocks with parts around them.

  Attributes:
    stem: fields of `Stem`, or None.
    pool: begin with 3x3 max pooling.
    conv: (name, features) of a strided 3x3 convolution in front, or None.
    blocks: (name, fields) of each block.
    linear: sums are not activated.
    last: channels of a 1x1 convolution at the end; 0 leaves it out.
    style: see `conv_norm`.
  """

  stem: dict[str, Any] | None
  pool: bool
  conv: tuple[str, int] | None
  blocks: tuple[tuple[str, dict[str, Any]], ...]
  linear: bool
  last: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """The map, and the same before its last activation."""
    # timm merges branches, and leaves other normalisations as they are.
    style = dataclasses.replace(self.style, fused=False)
    if self.stem is not None:
      x = Stem(**self.stem, style=self.style, name="first")(x, train=train)
    if self.pool:
      x = layers.max_pool(x)
    if self.conv is not None:
      name, features = self.conv
      conv = conv_norm.ConvNorm(features, style, 3, 2, act=True, name=name)
      x = conv(x, train=train)
    before = x
    for name, fields in self.blocks:
      branches = fields["kind"] in ("rep", "one")
      own = self.style if branches else style
      kind = mobilevit.KINDS.get(fields["kind"], Block)
      before = kind(**fields, style=own, name=name)(x, train=train)
      # RepVGG and MobileOne have no other kind of sum.
      linear = self.linear and not branches
      x = before if linear else style.activate(before)
    if self.last:
      final = conv_norm.ConvNorm(self.last, style, name="final_conv")
      before = final(x, train=train)
      x = style.activate(before)
    return x, before
