"""ResNet (arXiv:1512.03385) and what it became.

Wide ResNet (1605.07146), ResNeXt (1611.05431), squeeze-excite (1709.01507),
the stems and shortcuts C, D, S and T (1812.01187), ResNet-RS (2103.07579).

Names, hyper-parameters and feature maps are timm's; the stride sits in the 3x3
convolution. Initialisation: convolutions N(0, 2 / (k k c_out)), normalisation
scale 1, biases of squeeze-excite 0, classifier as PyTorch's linear layer.

Example:
  model = create_model("resnet18", num_classes=0)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  maps = model.apply(variables, images, end="stage4")
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.resnet.blocks import EXPANSION, Stage, Stem

_SIZES = {
  "10": (1, 1, 1, 1),
  "14": (1, 1, 1, 1),
  "18": (2, 2, 2, 2),
  "26": (2, 2, 2, 2),
  "34": (3, 4, 6, 3),
  "50": (3, 4, 6, 3),
  "101": (3, 4, 23, 3),
  "152": (3, 8, 36, 3),
  "200": (3, 24, 36, 3),
  "269": (3, 30, 48, 8),
  "270": (4, 29, 53, 4),
  "350": (4, 36, 72, 4),
  "420": (4, 44, 87, 4),
}
_BASIC = ("10", "18", "34")


def _variant(
  size: str, *options: dict[str, Any], **more: backbone.FieldValue
) -> dict[str, Any]:
  block = "basic" if size in _BASIC else "bottleneck"
  fields: dict[str, Any] = {"layers": _SIZES[size], "block": block}
  for option in options:
    fields.update(option)
  return {**fields, **more}


def _next(cardinality: int, base_width: int) -> dict[str, int]:
  return {"cardinality": cardinality, "base_width": base_width}


def _facts(crop_pct: float, size: int = 224) -> dict[str, Any]:
  return {"crop_pct": crop_pct, "input_size": (3, size, size)}


_TV = {"interpolation": "bilinear"}
_A = _facts(0.95)
_WIDE = {"base_width": 128}
_SE = {"se_ratio": 1 / 16}
_C = {"stem_type": "deep", "stem_width": 32}
_S = {"stem_type": "deep", "stem_width": 64}
_D = {**_C, "avg_down": True}
_T = {"stem_type": "deep_tiered", "stem_width": 32, "avg_down": True}
_ECA = {"eca": True}
_AVG = {"aa_layer": "avg"}
_BLUR = {"aa_layer": "blur"}
_RS = {**_D, "replace_stem_pool": True, "se_ratio": 0.25}

VARIANTS = {
  "resnet10t": _variant("10", _T, _facts(0.875, 176)),
  "resnet14t": _variant("14", _T, _facts(0.875, 176)),
  "resnet18": _variant("18", _A),
  "resnet18d": _variant("18", _D),
  "resnet26": _variant("26"),
  "resnet26d": _variant("26", _D),
  "resnet26t": _variant("26", _T, _facts(0.94, 256)),
  "resnet34": _variant("34", _A),
  "resnet34d": _variant("34", _D),
  "resnet50": _variant("50", _A),
  "resnet50c": _variant("50", _C),
  "resnet50d": _variant("50", _D),
  "resnet50s": _variant("50", _S),
  "resnet50t": _variant("50", _T),
  "resnet101": _variant("101", _A),
  "resnet101c": _variant("101", _C),
  "resnet101d": _variant("101", _D, _facts(0.95, 256)),
  "resnet101s": _variant("101", _S),
  "resnet152": _variant("152", _A),
  "resnet152c": _variant("152", _C),
  "resnet152d": _variant("152", _D, _facts(0.95, 256)),
  "resnet152s": _variant("152", _S),
  "resnet200": _variant("200"),
  "resnet200d": _variant("200", _D, _facts(0.95, 256)),
  "wide_resnet50_2": _variant("50", _WIDE),
  "wide_resnet101_2": _variant("101", _WIDE, _TV),
  "resnext50_32x4d": _variant("50", _next(32, 4), _A),
  "resnext50d_32x4d": _variant("50", _next(32, 4), _D),
  "resnext101_32x4d": _variant("101", _next(32, 4), _TV),
  "resnext101_32x8d": _variant("101", _next(32, 8), _TV),
  "resnext101_32x16d": _variant("101", _next(32, 16), _TV),
  "resnext101_32x32d": _variant("101", _next(32, 32), _TV),
  "resnext101_64x4d": _variant("101", _next(64, 4), _A),
  "seresnet18": _variant("18", _SE),
  "seresnet34": _variant("34", _SE),
  "seresnet50": _variant("50", _SE, _A),
  "seresnet50t": _variant("50", _SE, _T),
  "seresnet101": _variant("101", _SE),
  "seresnet152": _variant("152", _SE),
  "seresnet152d": _variant("152", _SE, _D, _facts(0.95, 256)),
  "seresnet200d": _variant("200", _SE, _D, _facts(0.875, 256)),
  "seresnet269d": _variant("269", _SE, _D, _facts(0.875, 256)),
  "seresnext26d_32x4d": _variant("26", _SE, _next(32, 4), _D),
  "seresnext26t_32x4d": _variant("26", _SE, _next(32, 4), _T),
  "seresnext50_32x4d": _variant("50", _SE, _next(32, 4)),
  "seresnext101_32x4d": _variant("101", _SE, _next(32, 4)),
  "seresnext101_32x8d": _variant("101", _SE, _next(32, 8), _A),
  "seresnext101_64x4d": _variant("101", _SE, _next(64, 4)),
  "seresnext101d_32x8d": _variant("101", _SE, _next(32, 8), _D, _A),
  "ecaresnet26t": _variant("26", _ECA, _T, _facts(0.875, 256)),
  "ecaresnetlight": _variant("50", _ECA, avg_down=True, layers=(1, 1, 11, 3)),
  "ecaresnet50d": _variant("50", _ECA, _D),
  "ecaresnet50t": _variant("50", _ECA, _T, _facts(0.875, 256)),
  "ecaresnet101d": _variant("101", _ECA, _D),
  "ecaresnet200d": _variant("200", _ECA, _D, _facts(0.95, 256)),
  "ecaresnet269d": _variant("269", _ECA, _D, _facts(0.95, 320)),
  "ecaresnext26t_32x4d": _variant("26", _ECA, _next(32, 4), _T),
  "ecaresnext50t_32x4d": _variant("50", _ECA, _next(32, 4), _T),
  "resnetaa34d": _variant("34", _AVG, _D),
  "resnetaa50": _variant("50", _AVG, _A),
  "resnetaa50d": _variant("50", _AVG, _D, _A),
  "resnetaa101d": _variant("101", _AVG, _D, _A),
  "seresnetaa50d": _variant("50", _AVG, _SE, _D),
  "seresnextaa101d_32x8d": _variant(
    "101", _AVG, _SE, _next(32, 8), _D, _facts(0.95, 288)
  ),
  "seresnextaa201d_32x8d": _variant(
    "200",
    _AVG,
    _SE,
    _next(32, 8),
    _D,
    _facts(1.0, 384),
    stem_width=64,
    layers=(3, 24, 36, 4),
  ),
  "resnetblur18": _variant("18", _BLUR),
  "resnetblur50": _variant("50", _BLUR),
  "resnetblur50d": _variant("50", _BLUR, _D),
  "resnetblur101d": _variant("101", _BLUR, _D),
  "resnetrs50": _variant("50", _RS, _facts(0.91, 160)),
  "resnetrs101": _variant("101", _RS, _facts(0.94, 192)),
  "resnetrs152": _variant("152", _RS, _facts(1.0, 256)),
  "resnetrs200": _variant("200", _RS, _facts(1.0, 256)),
  "resnetrs270": _variant("270", _RS, _facts(1.0, 256)),
  "resnetrs350": _variant("350", _RS, _facts(1.0, 288)),
  "resnetrs420": _variant("420", _RS, _facts(1.0, 320)),
}

_STEMS = ("", "deep", "deep_tiered", "cifar")
_STEM = "params/stem/"
_BLOCK = "params/stage{s}/block{b}/"
RULES = (
  ("conv1.weight", _STEM + "conv1/kernel", "conv"),
  ("conv1.0.weight", _STEM + "conv1_0/kernel", "conv"),
  ("conv1.{i}.weight", _STEM + "conv1_{i}/kernel", "conv"),
  ("conv1.{i}", _STEM + "bn1_{i}", "norm"),
  ("bn1", _STEM + "bn1", "norm"),
  ("maxpool.0.weight", "params/stage1/pool/kernel", "conv"),
  ("maxpool.1", "params/stage1/pool_bn", "norm"),
  ("layer{s}.{b}.conv{c}.weight", _BLOCK + "conv{c}/kernel", "conv"),
  ("layer{s}.{b}.bn{c}", _BLOCK + "bn{c}", "norm"),
  ("layer{s}.{b}.se.fc1", _BLOCK + "se/reduce", "conv2d"),
  ("layer{s}.{b}.se.fc2", _BLOCK + "se/expand", "conv2d"),
  ("layer{s}.{b}.se.conv.weight", _BLOCK + "se/kernel", "taps"),
  ("layer{s}.{b}.downsample.0.weight", _BLOCK + "downsample/kernel", "conv"),
  ("layer{s}.{b}.downsample.1", _BLOCK + "downsample_bn", "norm"),
  # timm counts the average in front of the convolution.
  ("layer{s}.{b}.downsample.1.weight", _BLOCK + "avg_down/kernel", "conv"),
  ("layer{s}.{b}.downsample.2", _BLOCK + "avg_down_bn", "norm"),
  ("fc.weight", "params/head/kernel", "linear"),
  ("fc.bias", "params/head/bias", "copy"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(backbone.ConvNet):
  """ResNet family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    layers: number of blocks per stage.
    channels: base width per stage; a bottleneck emits 4 times as many.
    stem_width: channels of the first convolution, whatever `channels` says;
      timm's plain stem has always 64.
    block: 'basic' or 'bottleneck'.
    cardinality: groups of the 3x3 convolution of a bottleneck.
    base_width: width per group at 64 channels.
    stem_type: '' (7x7 of stride 2, then max pooling), 'deep' (three 3x3 that
      end with 2 stem_width channels), 'deep_tiered' (the first of the three
      has a quarter less), or 'cifar' (3x3 of stride 1, no pooling).
    replace_stem_pool: a strided 3x3 convolution in place of max pooling.
    avg_down: 2x2 averages in the shortcuts instead of strided convolutions.
    se_ratio: hidden over output channels of squeeze-excite at the end of each
      branch; 0 has none.
    eca: gates of neighbouring channels' averages (arXiv:1910.03151) at the end
      of each branch.
    aa_layer: pooling in place of strides: 'avg' (2x2 averages), 'blur' or ''.
    zero_init_last: start each block as the identity (timm's default; KDEP
      does not).
    dilation_type: what `output_stride` dilates: 'timm' all 3x3 convolutions
      behind the place where the first stride was taken away, or 'conv2' the
      second convolution of every block of those stages and no other, as
      PSPNet (arXiv:1612.01105) does. Parameters are the same.
  """

  interpolation: str = "bicubic"
  layers: tuple[int, ...] = (2, 2, 2, 2)
  channels: tuple[int, ...] = (64, 128, 256, 512)
  block: str = "basic"
  cardinality: int = 1
  base_width: int = 64
  stem_width: int = 64
  stem_type: str = ""
  replace_stem_pool: bool = False
  avg_down: bool = False
  se_ratio: float = 0.0
  eca: bool = False
  aa_layer: str = ""
  zero_init_last: bool = False
  # Out of the `repr`, and so of the identity of teachers, where it is 'timm'.
  dilation_type: str = dataclasses.field(default="timm", repr=False)

  def __repr__(self) -> str:
    """The fields; a teacher's identity."""
    plain = self.dilation_type == "timm"
    return super().__repr__() + ("" if plain else f" # {self.dilation_type}")

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("dilation_type", self.dilation_type, ("timm", "conv2"))
    backbone.one_of("block", self.block, tuple(EXPANSION))
    backbone.one_of("stem_type", self.stem_type, _STEMS)
    backbone.one_of("aa_layer", self.aa_layer, ("", "avg", "blur"))
    backbone.positive("layers", self.layers, 4)
    backbone.positive("channels", self.channels, 4)
    self._check_stem()
    if not 0 <= self.se_ratio <= 1:
      raise ValueError(f"se_ratio is {self.se_ratio}, not in [0, 1]")
    if min(self.channels) * self.base_width // 64 * self.cardinality < 1:
      raise ValueError(
        f"cardinality={self.cardinality} and base_width={self.base_width} "
        f"leave no channels of {min(self.channels)}; the product of channels "
        "and base_width must be 64 or more"
      )
    wide = (self.cardinality, self.base_width) != (1, 64)
    if self.block == "basic" and wide:
      raise ValueError(
        "basic blocks have cardinality=1 and base_width=64, got "
        f"{self.cardinality} and {self.base_width}. Use block='bottleneck'."
      )

  def _check_stem(self) -> None:
    if self.stem_width < 1:
      raise ValueError(f"stem_width is {self.stem_width}; it must be > 0")
    if self.stem_type == "deep_tiered" and self.stem_width < 4:
      raise ValueError(
        f"stem_width is {self.stem_width}; stem_type='deep_tiered' needs 4"
      )
    if self.stem_type == "cifar" and self.replace_stem_pool:
      raise ValueError(
        "replace_stem_pool=True has no effect: stem_type='cifar' does not pool"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = self.channels[-1] * EXPANSION[self.block]
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "stem":
      x = Stem(_stem(self), self.dtype, name="stem")(x, train=train)
      return x, {"stem": x}
    if stage == "head":
      init = layers.torch_linear_init(self.num_features)
      return backbone.classify(self, x, kernel_init=init, bias_init=init)
    index = int(stage[-1]) - 1
    pool = "conv" if self.replace_stem_pool else self.aa_layer or "max"
    pool = pool if index == 0 and self.stem_type != "cifar" else ""
    x, before = Stage(_plan(self)[index], pool, name=stage)(x, train=train)
    last = backbone.before_activation(before) if index == 3 else {}
    return x, {stage: x, **last}


def _stem(model: Model) -> tuple[tuple[str, str, layers.ConvFields], ...]:
  """Names and fields of the convolutions of the stem, see `Stem`."""
  width = model.stem_width
  if "deep" not in model.stem_type:
    size, stride = (3, 1) if model.stem_type == "cifar" else (7, 2)
    plain: layers.ConvFields = {
      "features": width,
      "size": size,
      "stride": stride,
    }
    return (("conv1", "bn1", plain),)
  tiered = model.stem_type == "deep_tiered"
  first = width // 4 * 3 if tiered else width
  return (
    ("conv1_0", "bn1_1", {"features": first, "size": 3, "stride": 2}),
    ("conv1_3", "bn1_4", {"features": width, "size": 3}),
    ("conv1_6", "bn1", {"features": 2 * width, "size": 3}),
  )


def _plan(model: Model) -> list[tuple[dict[str, Any], ...]]:
  """The fields of every block, per stage."""
  rates = strides.drop_rates(model.drop_path_rate, model.layers)
  steps = strides.steps(model.output_stride, net_stride=4)
  plan = []
  for step, channels, stage in zip(steps, model.channels, rates, strict=True):
    shared = {
      "kind": model.block,
      "channels": channels,
      "width": channels * model.base_width // 64 * model.cardinality,
      "groups": model.cardinality,
      "dilation": step.dilation,
      "zero_init_last": model.zero_init_last,
      "se_ratio": model.se_ratio,
      "avg_down": model.avg_down,
      "eca": model.eca,
      "aa": model.aa_layer,
      "dtype": model.dtype,
    }
    plan.append(
      tuple(
        {
          **shared,
          "stride": step.stride if b == 0 else 1,
          "first_dilation": _first_dilation(model, step, b),
          "drop_path": rate,
        }
        for b, rate in enumerate(stage)
      )
    )
  return plan


def _first_dilation(model: Model, step: strides.Step, block: int) -> int:
  """Dilation of the first 3x3 convolution of a block of a stage."""
  if model.dilation_type == "conv2":
    return 1 if model.block == "basic" else step.dilation
  return step.dilation if block else step.first_dilation
