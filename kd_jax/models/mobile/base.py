"""The frame of the families made of `mbconv` blocks, as timm builds them.

Stages: a group of `arch_def` whose stride is 2 begins the next one; the stem
is the first convolution and the groups before. Initialisation is that of the
TensorFlow originals, except where a family says otherwise: convolutions
N(0, 2 / (k k c_out / groups)), normalisation scale 1, classifier
U(-1, 1) / sqrt(classes), biases 0.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from jax.nn import initializers
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.mobile import mbconv, words
from kd_jax.types import STAGES

TF = {"pad_type": "same", "bn_eps": 1e-3}
"""Fields of the networks with weights from TensorFlow, timm's 'tf_'."""

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""Normalisation to [-1, 1]."""

_BLOCKS = ("params/stem/block{s}_{b}/", "params/stage{k}/block{s}_{b}/")
RULES = (
  ("conv_stem.weight", "params/stem/conv/kernel", "conv"),
  ("bn1", "params/stem/bn", "norm"),
  *(
    (f"blocks.{{s}}.{{b}}.{conv}.weight", f"{path}{conv}/kernel", "conv")
    for path in _BLOCKS
    for conv in ("conv_pw", "conv_dw", "conv_pwl", "conv_exp", "conv")
  ),
  *(
    (f"blocks.{{s}}.{{b}}.se.conv_{conv}", f"{path}se/{conv}", "conv2d")
    for path in _BLOCKS
    for conv in ("reduce", "expand")
  ),
  *(("blocks.{s}.{b}.bn{c}", path + "bn{c}", "norm") for path in _BLOCKS),
  *(
    (f"blocks.{{s}}.{{b}}.{conv}.{part}", path + conv + mine, layout)
    for path in _BLOCKS
    for conv in ("dw_start", "pw_exp", "dw_mid", "pw_proj")
    for part, mine, layout in (
      ("conv.weight", "/kernel", "conv"),
      ("bn", "_bn", "norm"),
    )
  ),
  *(
    (f"blocks.{{s}}.{{b}}.attn.{part}.{layer}", f"{path}attn/{mine}", layout)
    for path in _BLOCKS
    for part in ("query", "key", "value", "output")
    for layer, mine, layout in (
      ("down_conv.weight", f"{part}_down/kernel", "conv"),
      ("norm", f"{part}_norm", "norm"),
      ("proj.weight", f"{part}/kernel", "pointwise"),
    )
  ),
  *(("blocks.{s}.{b}.norm", path + "norm", "norm") for path in _BLOCKS),
  *(
    ("blocks.{s}.{b}.layer_scale.gamma", path + "layer_scale/gamma", "copy")
    for path in _BLOCKS
  ),
  ("conv_head.weight", "params/neck/conv/kernel", "conv"),
  ("bn2", "params/neck/bn", "norm"),
  ("classifier", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

Plan = dict[str, list[tuple[str, dict[str, Any]]]]
"""Name and fields of every block, per stage."""


class MobileNet(backbone.ConvNet):
  """Stem, blocks, neck, pooling, classifier; a family subclasses it.

  Besides the common taps it emits 'final' with the head: the map after the
  last 1x1 convolution, which is what global pooling reads.

  Attributes:
    interpolation: see `Backbone`.
    arch_def: the groups of blocks, see `words`.
    channel_multiplier: factor of all widths, which are then rounded to 8.
    depth_multiplier: factor of the number of blocks, rounded up; a tuple has
      one per group.
    fix_stem_head: leave the width of stem and neck as it is.
    fix_depth: with `fix_stem_head`, leave the depth of the first and last group
      as it is, too.
    depth_trunc: 'ceil' or 'round', how depths become whole numbers.
    stem_size: channels of the first convolution.
    stem_stride: stride of the first convolution; 1 suits tiny images.
    round_limit: least share of a scaled width that rounding may leave.
    act_layer: activation, one of `mbconv.ACTIVATIONS`.
    pad_type: '' (symmetric) or 'same' (TensorFlow's, which is asymmetric).
    bn_eps: added to the variance in normalisation.
  """

  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = (
    ("*/conv_pwl/kernel", -2),
    ("*kernel", -1),
  )

  interpolation: str = "bicubic"
  arch_def: tuple[str, ...] = ()
  channel_multiplier: float = 1.0
  depth_multiplier: float | tuple[float, ...] = 1.0
  fix_stem_head: bool = False
  fix_depth: bool = True
  depth_trunc: str = "ceil"
  stem_size: int = 32
  stem_stride: int = 2
  round_limit: float = 0.9
  act_layer: str = "relu"
  pad_type: str = ""
  bn_eps: float = 1e-5

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("stem_stride", self.stem_stride, (1, 2))
    backbone.one_of("depth_trunc", self.depth_trunc, tuple(_TRUNC))
    backbone.one_of("act_layer", self.act_layer, tuple(mbconv.ACTIVATIONS))
    backbone.one_of("pad_type", self.pad_type, ("", "same"))
    for name in ("channel_multiplier", "stem_size", "bn_eps"):
      _above_zero(name, getattr(self, name))
    if not 0 <= self.round_limit <= 1:
      raise ValueError(f"round_limit is {self.round_limit}, not in [0, 1]")
    _check_depth(self.depth_multiplier, len(self.arch_def))
    steps = [words.decode(g)[0].stride for g in self.arch_def]
    if steps.count(2) != 4:
      raise ValueError(
        f"arch_def has {steps.count(2)} groups of stride 2; it must have 4, "
        "the first of stage1, stage2, stage3 and stage4"
      )

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution; 0 if there is none."""
    raise NotImplementedError

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.neck_width * layers.pool_factor(self.global_pool)

  @property
  def style(self) -> mbconv.Style:
    """What the layers share."""
    return mbconv.Style(
      act=self.act_layer,
      same=self.pad_type == "same",
      eps=self.bn_eps,
      dtype=self.dtype,
      init=mbconv.goog_init,
    )

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage != "head":
      stem = self._stem() if stage == "stem" else None
      run = mbconv.Stage(self.plan()[stage], stem, self.style, name=stage)
      x = run(x, train=train)
      return x, {stage: x}
    neck = mbconv.Neck(self.neck_width, self.style, name="neck")
    x = neck(x, train=train)
    final = mbconv.ACTIVATIONS[self.act_layer](x)
    logits, taps = backbone.classify(self, final, **self.head_inits())
    return logits, {"feature": x.mean((1, 2)), "final": final, **taps}

  def head_inits(self) -> backbone.Inits:
    """Initialisers of the classifier."""
    init = layers.torch_linear_init(max(self.num_classes, 1))
    return {"kernel_init": init, "bias_init": initializers.zeros}

  def se_width(self, ratio: float, expansion: float, width: int) -> int:
    """Hidden channels of squeeze-and-excitation.

    Args:
      ratio: as the `arch_def` says.
      expansion: width of the gated map over that of the block's input.
      width: number of gated channels.
    """
    return round(width * (ratio / expansion))

  def scaled(self, width: float) -> int:
    """A width times `channel_multiplier`, rounded."""
    return strides.divisible(width * self.channel_multiplier, self.round_limit)

  def plan(self) -> Plan:
    """See `Plan`; strides beyond `output_stride` are dilation, as in timm."""
    groups = self._groups()
    total, done = sum(map(len, groups)), 0
    width, net_stride, dilation, stage = self._stem()["features"], 2, 1, 0
    plan: Plan = {name: [] for name in STAGES[:-1]}
    for s, specs in enumerate(groups):
      stage += specs[0].stride == 2
      for b, spec in enumerate(specs):
        stride = spec.stride if b == 0 else 1
        dilate = net_stride * stride > self.output_stride
        fields = self._block(spec, width)
        fields["stride"] = 1 if dilate else stride
        fields["dilation"] = dilation
        fields["drop_path"] = self.drop_path_rate * done / total
        plan[STAGES[stage]].append((f"block{s}_{b}", fields))
        dilation *= stride if dilate else 1
        net_stride *= fields["stride"]
        width, done = fields["features"], done + 1
    return plan

  def _block(self, spec: words.Spec, width: int) -> dict[str, Any]:
    """The fields that do not depend on the stride; `width` is the input's."""
    base = self.scaled(spec.base) if spec.base else width
    middle = width
    if spec.kind in words.WIDE:
      middle = strides.divisible(base * spec.expansion)
    se = spec.se and self.se_width(spec.se, spec.expansion, middle)
    return {
      "kind": spec.kind,
      "features": self.scaled(spec.features),
      "width": middle,
      "size": spec.size,
      "se_width": int(se),
      "act": spec.act or self.act_layer,
      "last_act": spec.last_act,
      "skip": spec.skip,
      "start": spec.start,
      "base": width,
      "heads": spec.heads,
      "head_dim": spec.head_dim,
      "kv_stride": spec.kv_stride,
    }

  def _stem(self) -> layers.ConvFields:
    fixed = self.fix_stem_head
    width = self.stem_size if fixed else self.scaled(self.stem_size)
    return {"features": width, "size": 3, "stride": self.stem_stride}

  def _groups(self) -> list[list[words.Spec]]:
    """Every block of every group."""
    last, groups = len(self.arch_def) - 1, []
    for s, text in enumerate(self.arch_def):
      factor = self.depth_multiplier
      factor = factor[s] if isinstance(factor, tuple) else factor
      fixed = self.fix_stem_head and self.fix_depth and s in (0, last)
      specs = words.decode(text)
      whole = _TRUNC[self.depth_trunc]
      repeats = [n.repeat for n in specs]
      counts = _depths(repeats, whole(sum(repeats) * (1 if fixed else factor)))
      groups.append(
        [p for p, n in zip(specs, counts, strict=True) for _ in range(n)]
      )
    return groups


_TRUNC = {"ceil": math.ceil, "round": lambda depth: max(1, round(depth))}


def _depths(repeats: list[int], scaled: int) -> list[int]:
  """Shares the depth of a group out, later blocks first, as timm does."""
  left = sum(repeats)
  counts = []
  for repeat in reversed(repeats):
    count = max(1, round(repeat / left * scaled))
    counts.append(count)
    left, scaled = left - repeat, scaled - count
  return counts[::-1]


def _check_depth(value: float | tuple[float, ...], groups: int) -> None:
  if not isinstance(value, tuple):
    _above_zero("depth_multiplier", value)
    return
  if len(value) != groups:
    raise ValueError(
      f"depth_multiplier has {len(value)} numbers; arch_def has {groups} groups"
    )
  for number in value:
    _above_zero("depth_multiplier", number)


def _above_zero(name: str, value: object) -> None:
  if not isinstance(value, int | float) or not value > 0:
    raise ValueError(f"{name} is {value!r}; it must be > 0")
