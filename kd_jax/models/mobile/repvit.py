"""RepViT (arXiv:2307.09283) with timm's names, widths and feature maps.

A block mixes pixels by a depthwise convolution in three branches and channels
by a residual bottleneck. 'stem' is at a stride of 4. Two classifiers are
averaged, as in timm; the second one is the distilled one of the paper.
`fused` is what timm's `reparameterize_model` makes: every normalisation is in
a convolution. Initialisation: PyTorch's, classifiers N(0, 0.02).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.convs import conv_norm
from kd_jax.types import STAGES


def _variant(
  width: int, *depth: int, **more: backbone.FieldValue
) -> dict[str, Any]:
  widths = tuple(width * 2**i for i in range(4))
  return {"embed_dim": widths, "depth": depth, **more}


VARIANTS = {
  "repvit_m1": _variant(48, 2, 2, 14, 2, legacy=True),
  "repvit_m2": _variant(64, 2, 2, 12, 2, legacy=True),
  "repvit_m3": _variant(64, 4, 4, 18, 2, legacy=True),
  "repvit_m0_9": _variant(48, 2, 2, 14, 2),
  "repvit_m1_0": _variant(56, 2, 2, 14, 2),
  "repvit_m1_1": _variant(64, 2, 2, 12, 2),
  "repvit_m1_5": _variant(64, 4, 4, 24, 4),
  "repvit_m2_3": _variant(80, 6, 6, 34, 2),
}

_PARTS = (
  ("stem.conv{i}", "params/stem/conv{i}/"),
  *(
    (f"stages.{{s}}.{theirs}", f"params/stage{{s}}/{ours}/")
    for theirs, ours in (
      ("downsample.spatial_downsample", "spatial"),
      ("downsample.channel_downsample", "channel"),
      ("downsample.ffn.conv{i}", "ffn/conv{i}"),
      ("downsample.pre_block.channel_mixer.conv{i}", "pre/mlp/conv{i}"),
      ("blocks.{b}.channel_mixer.conv{i}", "block{b}/mlp/conv{i}"),
      ("downsample.pre_block.token_mixer.conv", "pre/mixer/large"),
      ("blocks.{b}.token_mixer.conv", "block{b}/mixer/large"),
      ("downsample.pre_block.token_mixer.conv1", "pre/mixer/small"),
      ("blocks.{b}.token_mixer.conv1", "block{b}/mixer/small"),
    )
  ),
)
_MIXERS = (
  ("downsample.pre_block.token_mixer", "pre/mixer"),
  ("blocks.{b}.token_mixer", "block{b}/mixer"),
)


def _shift(rule: tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
  """Timm counts stages from 0."""
  theirs, ours, layout = rule
  if "{s}" not in theirs:
    return (rule,)
  return tuple(
    (theirs.replace("{s}", str(k)), ours.replace("{s}", str(k + 1)), layout)
    for k in range(4)
  )


RULES = tuple(
  shifted
  for rule in (
    *((f"{t}.c.weight", f"{o}conv/kernel", "conv") for t, o in _PARTS),
    *((f"{t}.bn", f"{o}bn", "norm") for t, o in _PARTS),
    *((t, f"{o}merged", "conv2d") for t, o in _PARTS),
    *(
      (f"stages.{{s}}.{t}.{theirs}", f"params/stage{{s}}/{o}/{ours}", layout)
      for t, o in _MIXERS
      for theirs, ours, layout in (
        ("conv1", "small", "conv2d"),
        ("bn", "bn", "norm"),
      )
    ),
    *(
      (f"stages.{{s}}.{t}", f"params/stage{{s}}/{o}/merged", "conv2d")
      for t, o in _MIXERS
    ),
    *(
      (
        f"stages.{{s}}.blocks.{{b}}.se.fc{i}",
        f"params/stage{{s}}/block{{b}}/se/{name}",
        "conv2d",
      )
      for i, name in ((1, "reduce"), (2, "expand"))
    ),
    ("head.head.bn", "params/head/bn", "norm"),
    ("head.head.l", "params/head/dense", "dense"),
    ("head.head_dist.bn", "params/head/dist_bn", "norm"),
    ("head.head_dist.l", "params/head/dist_dense", "dense"),
    ("head", "params/head/merged", "dense"),
  )
  for shifted in _shift(rule)
)


class Mixer(conv_norm.Mergeable):
  """The depthwise convolution in three branches.

  Attributes:
    size: width of the window.
    legacy: normalise the 1x1 branch, not the sum.
    style: see there.
  """

  size: int
  legacy: bool
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """The sum of branches, one of which is the input."""
    width, style = x.shape[-1], self.style
    if style.fused:
      fields = {"use_bias": True, "dtype": style.dtype, "name": "merged"}
      return layers.Conv(width, self.size, groups=width, **fields)(x)
    large = conv_norm.ConvNorm(
      width, style, self.size, groups=width, name="large"
    )
    y = large(x, train=train)
    if self.legacy:
      small = conv_norm.ConvNorm(width, style, groups=width, name="small")
      return y + small(x, train=train) + x
    conv = layers.Conv(
      width,
      groups=width,
      use_bias=True,
      dtype=style.dtype,
      kernel_init=style.init(width),
      name="small",
    )
    return style.norm("bn")(y + conv(x) + x, train=train)

  def merge(self, tensors: conv_norm.Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    eps = self.style.eps
    kernel, bias = conv_norm.folded(tensors, "large/", eps)
    one = conv_norm.identity_kernel(1, 1, len(bias)), np.zeros(len(bias))
    if self.legacy:
      small = conv_norm.folded(tensors, "small/", eps)
    else:
      small = tensors["small/kernel"], tensors["small/bias"]
    kernel, bias = conv_norm.total([(kernel, bias), small, one])
    if self.legacy:
      return conv_norm.merged((kernel, bias))
    whole = {**tensors, "conv/kernel": kernel, "conv/bias": bias}
    return conv_norm.merged(conv_norm.folded(whole, "", eps))


class Mlp(nn.Module):
  """A residual bottleneck of 1x1 convolutions.

  Attributes:
    ratio: hidden channels per input channel.
    style: see there.
  """

  ratio: float
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """The input plus the branch."""
    width, style = x.shape[-1], self.style
    first = conv_norm.ConvNorm(
      int(width * self.ratio), style, act=True, name="conv1"
    )
    last = conv_norm.ConvNorm(width, style, scale=0.0, name="conv2")
    return x + last(first(x, train=train), train=train)


class Block(nn.Module):
  """Pixels, then channels.

  Attributes:
    size: width of the window.
    ratio: of the bottleneck.
    gated: squeeze-and-excitation between the two.
    legacy: see `Mixer`.
    style: see there.
  """

  size: int
  ratio: float
  gated: bool
  legacy: bool
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    x = Mixer(self.size, self.legacy, self.style, name="mixer")(x, train=train)
    if self.gated:
      # 1/4 of the channels, a multiple of 8.
      hidden = strides.divisible(x.shape[-1] / 4, 0.0)
      x = layers.SqueezeExcite(hidden, self.style.dtype, name="se")(x)
    return Mlp(self.ratio, self.style, name="mlp")(x, train=train)


class Head(conv_norm.Mergeable):
  """Two classifiers, normalisation and a linear layer each, averaged.

  Attributes:
    classes: number of outputs.
    distilled: have the second one.
    style: see there.
  """

  classes: int
  distilled: bool
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n c"], *, train: bool
  ) -> Float[Array, "n d"]:
    """The logits."""
    style = self.style
    if style.fused:
      return layers.Dense(self.classes, dtype=style.dtype, name="merged")(x)
    init = initializers.truncated_normal(0.02)
    logits = [
      layers.Dense(
        self.classes, dtype=style.dtype, kernel_init=init, name=f"{kind}dense"
      )(style.norm(f"{kind}bn")(x, train=train))
      for kind in self._kinds()
    ]
    return sum(logits[1:], logits[0]) / len(logits)

  def _kinds(self) -> tuple[str, ...]:
    return ("", "dist_") if self.distilled else ("",)

  def merge(self, tensors: conv_norm.Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    kernels, biases = [], []
    for kind in self._kinds():
      norm = {k: tensors[f"{kind}bn/{k}"] for k in ("scale", "bias")}
      var = tensors[f"{kind}bn/var"] + self.style.eps
      gain = norm["scale"] / np.sqrt(var)
      shift = norm["bias"] - tensors[f"{kind}bn/mean"] * gain
      kernel = tensors[f"{kind}dense/kernel"]
      kernels.append(gain[:, None] * kernel)
      biases.append(shift @ kernel + tensors[f"{kind}dense/bias"])
    return conv_norm.merged((np.mean(kernels, 0), np.mean(biases, 0)))


class Stage(nn.Module):
  """Blocks, with a step to half the size in front of them.

  Attributes:
    width: number of channels.
    depth: number of blocks.
    down: begin with the step.
    fields: of the blocks.
  """

  width: int
  depth: int
  down: bool
  fields: dict[str, Any]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    style, size = self.fields["style"], self.fields["size"]
    if self.down:
      x = Block(gated=False, **self.fields, name="pre")(x, train=train)
      spatial = conv_norm.ConvNorm(
        x.shape[-1], style, size, 2, groups=x.shape[-1], name="spatial"
      )
      channel = conv_norm.ConvNorm(self.width, style, name="channel")
      x = channel(spatial(x, train=train), train=train)
      x = Mlp(self.fields["ratio"], style, name="ffn")(x, train=train)
    for i in range(self.depth):
      block = Block(gated=i % 2 == 0, **self.fields, name=f"block{i}")
      x = block(x, train=train)
    return x


class Model(backbone.Backbone):
  """RepViT family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    embed_dim: channels of the stages.
    depth: their blocks.
    mlp_ratio: hidden channels of a bottleneck per channel.
    kernel_size: width of the depthwise windows.
    act_layer: activation, one of `conv_norm.ACTIVATIONS`.
    distillation: have the second classifier.
    legacy: of the first version, see `Mixer`.
    fused: the merged network, see `kd_jax.models.fuse`.
  """

  POOLS = ("avg",)

  interpolation: str = "bicubic"
  crop_pct: float = 0.95
  embed_dim: tuple[int, ...] = (48, 96, 192, 384)
  depth: tuple[int, ...] = (2, 2, 14, 2)
  mlp_ratio: float = 2.0
  kernel_size: int = 3
  act_layer: str = "gelu"
  distillation: bool = True
  legacy: bool = False
  fused: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("embed_dim", self.embed_dim, 4)
    backbone.positive("depth", self.depth, 4)
    backbone.one_of("act_layer", self.act_layer, conv_norm.ACTIVATIONS)
    if self.kernel_size < 3 or self.kernel_size % 2 == 0:
      raise ValueError(
        f"kernel_size is {self.kernel_size}; it must be odd and at least 3"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.embed_dim[-1]

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    style = conv_norm.Style(self.act_layer, self.dtype, fused=self.fused)
    if stage == "head":
      pooled = logits = x.mean((1, 2))
      if self.num_classes:
        head = Head(self.num_classes, self.distillation, style, name="head")
        logits = head(pooled, train=train)
      return logits, {"pooled": pooled, "logits": logits}
    if stage == "stem":
      x = Stem(self.embed_dim[0], style, name="stem")(x, train=train)
      return x, {"stem": x}
    k = STAGES.index(stage) - 1
    fields = {
      "size": self.kernel_size,
      "ratio": self.mlp_ratio,
      "legacy": self.legacy,
      "style": style,
    }
    layer = Stage(self.embed_dim[k], self.depth[k], k > 0, fields, name=stage)
    x = layer(x, train=train)
    taps = {stage: x}
    return x, {**taps, "feature": x.mean((1, 2))} if k == 3 else taps


class Stem(nn.Module):
  """Two strided convolutions.

  Attributes:
    width: number of channels.
    style: see there.
  """

  width: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w 3"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map at a stride of 4."""
    first = conv_norm.ConvNorm(
      self.width // 2, self.style, 3, 2, act=True, name="conv1"
    )
    last = conv_norm.ConvNorm(self.width, self.style, 3, 2, name="conv2")
    return last(first(x, train=train), train=train)
