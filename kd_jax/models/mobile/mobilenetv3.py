"""MobileNetV3 (arXiv:1905.02244), FBNetV3 (2006.02049), LCNet (2109.15099).

Names, widths and feature maps are timm's. The 1x1 convolution `neck` follows
global pooling. Initialisation: see `kd_jax.models.mobile.base`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.mobile import base, mbconv

_LARGE = (
  "ds_r1_k3_s1_e1_c16_nre",
  "ir_r1_k3_s2_e4_c24_nre ir_r1_k3_s1_e3_c24_nre",
  "ir_r3_k5_s2_e3_c40_se0.25_nre",
  "ir_r1_k3_s2_e6_c80 ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80",
  "ir_r2_k3_s1_e6_c112_se0.25",
  "ir_r3_k5_s2_e6_c160_se0.25",
  "cn_r1_k1_s1_c960",
)
_SMALL = (
  "ds_r1_k3_s2_e1_c16_se0.25_nre",
  "ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
  "ir_r1_k5_s2_e4_c40_se0.25 ir_r2_k5_s1_e6_c40_se0.25",
  "ir_r2_k5_s1_e3_c48_se0.25",
  "ir_r3_k5_s2_e6_c96_se0.25",
  "cn_r1_k1_s1_c576",
)
_RW = ("ds_r1_k3_s1_e1_c16_nre_noskip", *_LARGE[1:])
_FB_B = (
  "ds_r2_k3_s1_e1_c16",
  "ir_r1_k5_s2_e4_c24 ir_r3_k5_s1_e2_c24",
  "ir_r1_k5_s2_e5_c40_se0.25 ir_r4_k5_s1_e3_c40_se0.25",
  "ir_r1_k5_s2_e5_c72 ir_r4_k3_s1_e3_c72",
  "ir_r1_k3_s1_e5_c120_se0.25 ir_r5_k5_s1_e3_c120_se0.25",
  "ir_r1_k3_s2_e6_c184_se0.25 ir_r5_k5_s1_e4_c184_se0.25 "
  "ir_r1_k5_s1_e6_c224_se0.25",
  "cn_r1_k1_s1_c1344",
)
_FB_D = (
  "ds_r2_k3_s1_e1_c16",
  "ir_r1_k3_s2_e5_c24 ir_r5_k3_s1_e2_c24",
  "ir_r1_k5_s2_e4_c40_se0.25 ir_r4_k3_s1_e3_c40_se0.25",
  "ir_r1_k3_s2_e5_c72 ir_r4_k3_s1_e3_c72",
  "ir_r1_k3_s1_e5_c128_se0.25 ir_r6_k5_s1_e3_c128_se0.25",
  "ir_r1_k3_s2_e6_c208_se0.25 ir_r5_k5_s1_e5_c208_se0.25 "
  "ir_r1_k5_s1_e6_c240_se0.25",
  "cn_r1_k1_s1_c1440",
)
_FB_G = (
  "ds_r3_k3_s1_e1_c24",
  "ir_r1_k5_s2_e4_c40 ir_r4_k5_s1_e2_c40",
  "ir_r1_k5_s2_e4_c56_se0.25 ir_r4_k5_s1_e3_c56_se0.25",
  "ir_r1_k5_s2_e5_c104 ir_r4_k3_s1_e3_c104",
  "ir_r1_k3_s1_e5_c160_se0.25 ir_r8_k5_s1_e3_c160_se0.25",
  "ir_r1_k3_s2_e6_c264_se0.25 ir_r6_k5_s1_e5_c264_se0.25 "
  "ir_r2_k5_s1_e6_c288_se0.25",
  "cn_r1_k1_s1_c1728",
)
_LC = (
  "dsa_r1_k3_s1_c32",
  "dsa_r2_k3_s2_c64",
  "dsa_r2_k3_s2_c128",
  "dsa_r1_k3_s2_c256 dsa_r1_k5_s1_c256",
  "dsa_r4_k5_s1_c256",
  "dsa_r2_k5_s2_c512_se0.25",
)


def _small(**more: backbone.FieldValue) -> dict[str, Any]:
  return {"arch_def": _SMALL, "head_width": 1024, **more}


def _minimal(
  arch: tuple[str, ...], **more: backbone.FieldValue
) -> dict[str, Any]:
  """3x3 windows, ReLU and no squeeze-and-excitation."""
  for old, new in (("_k5", "_k3"), ("_nre", ""), ("_se0.25", "")):
    arch = tuple(group.replace(old, new) for group in arch)
  return {"arch_def": arch, "act_layer": "relu", **more}


def _fbnet(arch: tuple[str, ...], stem_size: int, size: int = 224) -> dict:
  return {
    "arch_def": arch,
    "stem_size": stem_size,
    "head_width": 1984,
    "head_bias": False,
    "se_from_exp": False,
    "se_act_layer": "",
    "round_limit": 0.95,
    "interpolation": "bilinear",
    "crop_pct": 0.95,
    "input_size": (3, size, size),
  }


def _lcnet(width: float, interpolation: str = "bicubic") -> dict[str, Any]:
  return {
    "arch_def": _LC,
    "channel_multiplier": width,
    "se_round": False,
    "interpolation": interpolation,
  }


_TF = {**base.TF, **base.HALF, "interpolation": "bilinear"}
VARIANTS = {
  "mobilenetv3_small_050": _small(channel_multiplier=0.5, fix_stem_head=True),
  "mobilenetv3_small_075": _small(channel_multiplier=0.75),
  "mobilenetv3_small_100": _small(),
  "mobilenetv3_large_075": {
    "channel_multiplier": 0.75,
    "interpolation": "bilinear",
  },
  "mobilenetv3_large_100": {},
  "mobilenetv3_large_150d": {
    "channel_multiplier": 1.5,
    "depth_multiplier": 1.2,
    "interpolation": "bilinear",
    "crop_pct": 0.95,
    "input_size": (3, 256, 256),
    **base.HALF,
  },
  "mobilenetv3_rw": {
    "arch_def": _RW,
    "head_bias": False,
    "se_round": False,
    "se_act_layer": "",
    "bn_eps": 1e-3,
  },
  "tf_mobilenetv3_small_075": _small(channel_multiplier=0.75, **_TF),
  "tf_mobilenetv3_small_100": _small(**_TF),
  "tf_mobilenetv3_small_minimal_100": _minimal(_SMALL, head_width=1024, **_TF),
  "tf_mobilenetv3_large_075": {"channel_multiplier": 0.75, **_TF},
  "tf_mobilenetv3_large_100": _TF,
  "tf_mobilenetv3_large_minimal_100": _minimal(_LARGE, **_TF),
  "fbnetv3_b": _fbnet(_FB_B, 16),
  "fbnetv3_d": _fbnet(_FB_D, 24),
  "fbnetv3_g": _fbnet(_FB_G, 32, 240),
  "lcnet_035": _lcnet(0.35, "bilinear"),
  "lcnet_050": _lcnet(0.5),
  "lcnet_075": _lcnet(0.75),
  "lcnet_100": _lcnet(1.0),
  "lcnet_150": _lcnet(1.5, "bilinear"),
}

RULES = (
  *base.RULES,
  ("conv_head.weight", "params/neck/kernel", "pointwise"),
  ("conv_head.bias", "params/neck/bias", "copy"),
)


class Model(base.MobileNet):
  """MobileNetV3 family; `VARIANTS` lists the named members.

  There is no tap 'final': global pooling reads 'stage4'.

  Attributes:
    arch_def: see `MobileNet`.
    stem_size: see `MobileNet`.
    act_layer: see `MobileNet`.
    head_width: channels of `neck`, which are never scaled.
    head_bias: add a bias there.
    se_from_exp: the widths of squeeze-and-excitation in `arch_def` are
      relative to the gated map, not to the block's input.
    se_round: round these widths to multiples of 8.
    se_act_layer: activation inside squeeze-and-excitation; '' is the block's.
  """

  arch_def: tuple[str, ...] = _LARGE
  stem_size: int = 16
  act_layer: str = "hard_swish"
  head_width: int = 1280
  head_bias: bool = True
  se_from_exp: bool = True
  se_round: bool = True
  se_act_layer: str = "relu"

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of(
      "se_act_layer", self.se_act_layer, ("", *mbconv.ACTIVATIONS)
    )
    if self.head_width < 1:
      raise ValueError(f"head_width is {self.head_width}; it must be > 0")

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution."""
    return self.head_width

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_width

  @property
  def style(self) -> mbconv.Style:
    """What the layers share."""
    return dataclasses.replace(
      super().style, se_act=self.se_act_layer, gate=_hard_sigmoid
    )

  def se_width(self, ratio: float, expansion: float, width: int) -> int:
    """See `MobileNet`."""
    hidden = width * (ratio if self.se_from_exp else ratio / expansion)
    if self.se_round:
      return strides.divisible(hidden, self.round_limit)
    return round(hidden)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage != "head":
      return super().run_stage(stage, x, train=train)
    feature = self.neck(layers.global_pool(x, self.global_pool), train)
    pooled = logits = mbconv.ACTIVATIONS[self.act_layer](feature)
    if self.num_classes:
      fields = {"dtype": self.dtype, **self.head_inits()}
      logits = layers.Dense(self.num_classes, **fields, name="head")(pooled)
    return logits, {"feature": feature, "pooled": pooled, "logits": logits}

  def neck(self, x: Float[Array, "n c"], train: bool) -> Float[Array, "n d"]:
    """From pooled channels to `feature`; part of `run_stage`."""
    del train
    layer = layers.Dense(
      self.head_width,
      use_bias=self.head_bias,
      dtype=self.dtype,
      kernel_init=layers.kaiming_fan_out,
      name="neck",
    )
    return layer(x)


def _hard_sigmoid(x: Array) -> Array:
  return nn.relu6(x + 3) / 6
