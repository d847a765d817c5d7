"""RepVGG (arXiv:2101.03697), MobileOne (2206.04040), MobileViT, RegNetZ, ...

GENet, and ResNets of timm's own.

Names, widths and feature maps are those of timm's 'byobnet'. `fused` is what
timm's `reparameterize_model` makes of RepVGG and MobileOne. Initialisation:
convolutions N(0, 2 / (k k c_out / groups)), the last normalisation of a
residual branch 0, those of RepVGG N(0.1, 0.1), linear layers N(0, 0.01).
"""

from __future__ import annotations

from typing import Any

from jax.nn import initializers
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.byob import (
  blocks,
  members,
  members_vit,
  mobilevit,
  words,
)
from kd_jax.models.convs import conv_norm, gates, mobile_one
from kd_jax.models.mobile import mbconv
from kd_jax.types import STAGES

VARIANTS = {**members.MEMBERS, **members_vit.MEMBERS}

STEMS = ("3x3", "7x7", "tiered", "deep", "quad", "quad2", "rep", "one")
_THEIRS, _OURS = "stages.{s}.{b}", "params/stage{k}/block{s}_{b}"
# Blocks at the resolution of the first convolution.
_STEM = "params/stem/block{s}_{b}"
_CONVS = (
  "conv1_kxk",
  "conv2_kxk",
  "conv2b_kxk",
  "conv1_1x1",
  "conv2_1x1",
  "conv3_1x1",
)
_REP = ("conv_kxk", "conv_1x1")


def _conv_rules(theirs: str, ours: str) -> tuple[mobile_one.Rule, ...]:
  return (
    (f"{theirs}.conv.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.bn", f"{ours}/bn", "norm"),
  )


def _branch_rules(theirs: str, ours: str) -> tuple[mobile_one.Rule, ...]:
  """Of blocks that merge."""
  return (
    *(
      rule
      for name in _REP
      for rule in _conv_rules(f"{theirs}.{name}", f"{ours}/rep/{name}")
    ),
    (f"{theirs}.identity", f"{ours}/rep/identity", "norm"),
    (f"{theirs}.reparam_conv", f"{ours}/rep/merged", "conv2d"),
    *mobile_one.rules(theirs, f"{ours}/one", "attn"),
  )


RULES = (
  ("stem.conv.weight", "params/stem/first/conv/conv/kernel", "conv"),
  ("stem.bn", "params/stem/first/conv/bn", "norm"),
  *_conv_rules("stem.conv{i}", "params/stem/first/conv{i}"),
  *_conv_rules("stem.conv{i}", "params/stage1/conv{i}"),
  ("stem.conv{i}.weight", "params/stem/first/conv{i}/kernel", "conv"),
  *_branch_rules("stem", "params/stem/first"),
  *gates.rules("stem.attn", "params/stem/first/attn"),
  *(
    rule
    for name in _CONVS
    for ours in (_OURS, _STEM)
    for rule in _conv_rules(f"{_THEIRS}.{name}", f"{ours}/{name}")
  ),
  *_branch_rules(_THEIRS, _OURS),
  *mobilevit.rules(_THEIRS, _OURS),
  *gates.rules(f"{_THEIRS}.attn", f"{_OURS}/attn"),
  *gates.rules(f"{_THEIRS}.attn", f"{_STEM}/attn"),
  # Gates after the last convolution.
  *gates.rules(f"{_THEIRS}.attn_last", f"{_OURS}/attn_last"),
  *_conv_rules(f"{_THEIRS}.shortcut", f"{_OURS}/shortcut"),
  *_conv_rules(f"{_THEIRS}.shortcut.conv", f"{_OURS}/shortcut_avg"),
  *_conv_rules("final_conv", "params/stage{k}/final_conv"),
  ("head.fc", "params/head", "dense"),
)


class Model(backbone.ConvNet):
  """The family; `VARIANTS` lists the named members.

  'feature' is the mean of the last map before its activation.

  Attributes:
    blocks: the stages, see `words`.
    stem_type: one of `STEMS`.
    stem_chs: output channels of the stem.
    stem_pool: 'maxpool' or ''.
    downsample: a shortcut where shapes differ: 'conv1x1', 'avg', '' is none.
    last_width: channels of a 1x1 convolution after the stages; 0 is none.
    act_layer: activation, one of `conv_norm.ACTIVATIONS`.
    attn_layer: gate of every block, one of `gates.KINDS`.
    se_ratio: its hidden channels per channel; 0 is that of the kind.
    se_divisor: what the hidden channels of 'se' are a multiple of.
    bottle_in: the inner width of 'bottle' counts from the input.
    linear_out: no activation after sums.
    fused: the merged network, see `kd_jax.models.fuse`.
  """

  blocks: tuple[str, ...] = ()
  stem_type: str = "3x3"
  stem_chs: int = 32
  stem_pool: str = ""
  downsample: str = "conv1x1"
  last_width: int = 0
  act_layer: str = "relu"
  attn_layer: str = ""
  se_ratio: float = 0.0
  se_divisor: int = 8
  bottle_in: bool = False
  linear_out: bool = False
  fused: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("stem_type", self.stem_type, STEMS)
    backbone.one_of("stem_pool", self.stem_pool, ("maxpool", ""))
    backbone.one_of("downsample", self.downsample, blocks.SHORTCUTS)
    backbone.one_of("act_layer", self.act_layer, conv_norm.ACTIVATIONS)
    backbone.one_of("attn_layer", self.attn_layer, gates.KINDS)
    steps = [words.decode(text)[0].stride for text in self.blocks]
    if steps.count(2) + self._stem_splits != 4:
      raise ValueError(
        f"blocks has {steps.count(2)} stages of stride 2; after this stem it "
        f"must have {4 - self._stem_splits}"
      )

  @property
  def _stem_splits(self) -> bool:
    """Whether the stem goes on to a stride of 4."""
    several = self.stem_type in ("tiered", "deep", "quad", "quad2")
    plain = self.stem_type not in ("rep", "one")
    return several or bool(self.stem_pool and plain)

  @property
  def _gate_fields(self) -> dict[str, Any]:
    return {"ratio": self.se_ratio, "divisor": self.se_divisor}

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    last = words.decode(self.blocks[-1])[-1].features
    width = self.last_width or strides.divisible(last)
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "head":
      return backbone.classify(self, x, kernel_init=initializers.normal(0.01))
    style = conv_norm.Style(
      self.act_layer, self.dtype, fused=self.fused, init=mbconv.goog_init
    )
    layer = blocks.Stage(**self._plan()[stage], style=style, name=stage)
    x, before = layer(x, train=train)
    if stage != "stage4":
      return x, {stage: x}
    return x, {stage: x, **backbone.before_activation(before)}

  def _stem(self) -> tuple[dict[str, Any], tuple[str, int] | None]:
    """Fields of the stem, and the strided convolution that follows."""
    out, kind = self.stem_chs, self.stem_type
    widths = {
      "tiered": (3 * out // 8, out // 2, out),
      "deep": (out, out, out),
      "quad": tuple(round(out * 0.5**i) for i in (3, 2, 1, 0)),
    }.get(kind.rstrip("2"), (out,))
    last = None
    if len(widths) > 1 and not self.stem_pool:
      last = f"conv{len(widths)}", widths[-1]
      widths = widths[:-1]
    fields = {
      "kind": kind if kind in ("rep", "one") else "convs",
      "widths": widths,
      "bare": 2 if kind == "quad2" else 0,
      "size": 7 if kind == "7x7" else 3,
      "named": self._stem_splits,
      "gate": self.attn_layer,
      "gate_fields": self._gate_fields,
    }
    return fields, last

  def _plan(self) -> dict[str, dict[str, Any]]:
    """Fields of every stage."""
    stem, conv = self._stem()
    plan: dict[str, dict[str, Any]] = {
      name: {
        "stem": stem if name == "stem" else None,
        "pool": name == "stage1" and self._stem_splits and conv is None,
        "conv": conv if name == "stage1" else None,
        "blocks": (),
        "linear": self.linear_out,
        "last": self.last_width if name == "stage4" else 0,
      }
      for name in STAGES[:-1]
    }
    groups = [
      [s._replace(stride=s.stride if i == 0 else 1) for i, s in enumerate(all_)]
      for all_ in map(_repeated, self.blocks)
    ]
    firsts = [group[0].stride for group in groups]
    net = 4 if self._stem_splits else 2
    geometry = strides.steps(self.output_stride, net, firsts)
    rates = strides.drop_rates(self.drop_path_rate, [*map(len, groups)])
    width, level = self.stem_chs, int(self._stem_splits)
    for s, (group, step) in enumerate(zip(groups, geometry, strict=True)):
      level += group[0].stride == 2
      for b, spec in enumerate(group):
        first = step.first_dilation if b == 0 else step.dilation
        fields = self._block(spec, width)
        fields["stride"] = step.stride if b == 0 else 1
        fields["dilation"] = (first, step.dilation)
        fields["drop_path"] = rates[s][b]
        plan[STAGES[level]]["blocks"] += ((f"block{s}_{b}", fields),)
        width = fields["features"]
    return plan

  def _block(self, spec: words.Spec, width: int) -> dict[str, Any]:
    """The fields that do not depend on the stride; `width` is the input's."""
    out = strides.divisible(spec.features)
    inner = width if self.bottle_in and spec.kind == "bottle" else out
    if spec.kind in mobilevit.KINDS:
      return {
        "kind": spec.kind,
        "features": out,
        "width": spec.inner or strides.divisible(inner * spec.ratio),
        "size": spec.size,
        "group": spec.group,
        "blocks": spec.blocks,
        "patch": spec.patch,
      }
    return {
      "kind": spec.kind,
      "features": out,
      "width": strides.divisible(inner * spec.ratio),
      "size": spec.size,
      "group": spec.group,
      "branches": spec.branches,
      "extra": spec.extra,
      "gate": "se" if spec.se else self.attn_layer,
      "gate_fields": self._gate_fields,
      "shortcut": self.downsample,
    }


def _repeated(text: str) -> list[words.Spec]:
  return [s for spec in words.decode(text) for s in [spec] * spec.repeat]
