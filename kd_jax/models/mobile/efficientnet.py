"""EfficientNet (arXiv:1905.11946), EfficientNetV2 (arXiv:2104.00298).

Names, widths and feature maps are timm's; 'tf_' are the networks whose weights
come from TensorFlow, with its padding and eps. 'l2' is that of Noisy Student
(arXiv:1911.04252), 'lite' and 'es', 'em', 'el' (EdgeTPU) are made for phones.
Initialisation: see `kd_jax.models.mobile.base`.
"""

from __future__ import annotations

from typing import Any

from kd_jax.models import backbone
from kd_jax.models.mobile import base

_B = (
  "ds_r1_k3_s1_e1_c16_se0.25",
  "ir_r2_k3_s2_e6_c24_se0.25",
  "ir_r2_k5_s2_e6_c40_se0.25",
  "ir_r3_k3_s2_e6_c80_se0.25",
  "ir_r3_k5_s1_e6_c112_se0.25",
  "ir_r4_k5_s2_e6_c192_se0.25",
  "ir_r1_k3_s1_e6_c320_se0.25",
)
_LITE = tuple(group.removesuffix("_se0.25") for group in _B)
_EDGE = (
  "er_r1_k3_s1_e4_c24_fc24_noskip",
  "er_r2_k3_s2_e8_c32",
  "er_r4_k3_s2_e8_c48",
  "ir_r5_k5_s2_e8_c96",
  "ir_r4_k5_s1_e8_c144",
  "ir_r2_k5_s2_e8_c192",
)
_V2_B = (
  "cn_r1_k3_s1_e1_c16_skip",
  "er_r2_k3_s2_e4_c32",
  "er_r2_k3_s2_e4_c48",
  "ir_r3_k3_s2_e4_c96_se0.25",
  "ir_r5_k3_s1_e6_c112_se0.25",
  "ir_r8_k3_s2_e6_c192_se0.25",
)
_V2_S = (
  "cn_r2_k3_s1_e1_c24_skip",
  "er_r4_k3_s2_e4_c48",
  "er_r4_k3_s2_e4_c64",
  "ir_r6_k3_s2_e4_c128_se0.25",
  "ir_r9_k3_s1_e6_c160_se0.25",
  "ir_r15_k3_s2_e6_c256_se0.25",
)
_V2_RW = (
  "er_r2_k3_s1_e1_c24",
  *_V2_S[1:-1],
  "ir_r15_k3_s2_e6_c272_se0.25",
)
_V2_M = (
  "cn_r3_k3_s1_e1_c24_skip",
  "er_r5_k3_s2_e4_c48",
  "er_r5_k3_s2_e4_c80",
  "ir_r7_k3_s2_e4_c160_se0.25",
  "ir_r14_k3_s1_e6_c176_se0.25",
  "ir_r18_k3_s2_e6_c304_se0.25",
  "ir_r5_k3_s1_e6_c512_se0.25",
)
_V2_L = (
  "cn_r4_k3_s1_e1_c32_skip",
  "er_r7_k3_s2_e4_c64",
  "er_r7_k3_s2_e4_c96",
  "ir_r10_k3_s2_e4_c192_se0.25",
  "ir_r19_k3_s1_e6_c224_se0.25",
  "ir_r25_k3_s2_e6_c384_se0.25",
  "ir_r7_k3_s1_e6_c640_se0.25",
)
_V2_XL = (
  "cn_r4_k3_s1_e1_c32_skip",
  "er_r8_k3_s2_e4_c64",
  "er_r8_k3_s2_e4_c96",
  "ir_r16_k3_s2_e4_c192_se0.25",
  "ir_r24_k3_s1_e6_c256_se0.25",
  "ir_r32_k3_s2_e6_c512_se0.25",
  "ir_r8_k3_s1_e6_c640_se0.25",
)
_TEST = (
  "cn_r1_k3_s1_e1_c16_skip",
  "er_r1_k3_s2_e4_c24",
  "er_r1_k3_s2_e4_c32",
  "ir_r1_k3_s2_e4_c48_se0.25",
  "ir_r1_k3_s2_e4_c64_se0.25",
)

# Factors of width and depth.
_SCALES = {
  "b0": (1.0, 1.0),
  "b1": (1.0, 1.1),
  "b2": (1.1, 1.2),
  "b3": (1.2, 1.4),
  "b4": (1.4, 1.8),
  "b5": (1.6, 2.2),
  "b6": (1.8, 2.6),
  "b7": (2.0, 3.1),
  "b8": (2.2, 3.6),
  "l2": (4.3, 5.3),
  "lite0": (1.0, 1.0),
  "lite1": (1.0, 1.1),
  "lite2": (1.1, 1.2),
  "lite3": (1.2, 1.4),
  "lite4": (1.4, 1.8),
  "es": (1.0, 1.0),
  "em": (1.0, 1.1),
  "el": (1.2, 1.4),
}


def _variant(
  scale: str, size: int, crop_pct: float = 0.875, **more: backbone.FieldValue
) -> dict[str, Any]:
  width, depth = _SCALES[scale]
  return {
    "channel_multiplier": width,
    "depth_multiplier": depth,
    **_image(size, crop_pct),
    **more,
  }


def _image(size: int, crop_pct: float) -> dict[str, Any]:
  return {"input_size": (3, size, size), "crop_pct": crop_pct}


def _tiny(
  width: float, depth: float, size: int, interpolation: str = "bicubic"
) -> dict[str, Any]:
  """TinyNet (arXiv:2010.14819)."""
  return {
    "channel_multiplier": width,
    "depth_multiplier": depth,
    "depth_trunc": "round",
    "fix_stem_head": True,
    "fix_depth": False,
    "interpolation": interpolation,
    **_image(size, 0.875),
  }


_LITE_FIELDS: dict[str, Any] = {
  "arch_def": _LITE,
  "act_layer": "relu6",
  "fix_stem_head": True,
}
_EDGE_FIELDS: dict[str, Any] = {"arch_def": _EDGE, "act_layer": "relu"}
_V2_FIELDS: dict[str, Any] = {"arch_def": _V2_B, "round_limit": 0.0}
_S: dict[str, Any] = {"arch_def": _V2_S, "stem_size": 24}
_RW: dict[str, Any] = {**_S, "arch_def": _V2_RW, "head_width": 1792}
_M: dict[str, Any] = {"arch_def": _V2_M, "stem_size": 24}
_L: dict[str, Any] = {"arch_def": _V2_L}
_XL: dict[str, Any] = {"arch_def": _V2_XL}

_TF = base.TF
_SQUASH: dict[str, Any] = {"crop_mode": "squash"}
_TF_HALF: dict[str, Any] = {**_TF, **base.HALF}
VARIANTS = {
  "efficientnet_b0": _variant("b0", 224),
  "efficientnet_b1": _variant("b1", 240, 0.9, **base.HALF),
  "efficientnet_b2": _variant("b2", 256),
  "efficientnet_b3": _variant("b3", 288),
  "efficientnet_b4": _variant("b4", 320),
  "efficientnet_b5": _variant("b5", 448, 1.0, **_SQUASH),
  "efficientnet_b6": _variant("b6", 528, 0.942),
  "efficientnet_b7": _variant("b7", 600, 0.949),
  "efficientnet_b8": _variant("b8", 672, 0.954),
  "efficientnet_l2": _variant("l2", 800, 0.961),
  "tf_efficientnet_b0": _variant("b0", 224, **_TF),
  "tf_efficientnet_b1": _variant("b1", 240, 0.882, **_TF),
  "tf_efficientnet_b2": _variant("b2", 260, 0.89, **_TF),
  "tf_efficientnet_b3": _variant("b3", 300, 0.904, **_TF),
  "tf_efficientnet_b4": _variant("b4", 380, 0.922, **_TF),
  "tf_efficientnet_b5": _variant("b5", 456, 0.934, **_TF),
  "tf_efficientnet_b6": _variant("b6", 528, 0.942, **_TF),
  "tf_efficientnet_b7": _variant("b7", 600, 0.949, **_TF),
  "tf_efficientnet_b8": _variant("b8", 672, 0.954, **_TF_HALF),
  "tf_efficientnet_l2": _variant("l2", 475, 0.936, **_TF),
  "efficientnet_lite0": _variant("lite0", 224, **_LITE_FIELDS),
  "efficientnet_lite1": _variant("lite1", 240, 0.882, **_LITE_FIELDS),
  "efficientnet_lite2": _variant("lite2", 260, 0.89, **_LITE_FIELDS),
  "efficientnet_lite3": _variant("lite3", 300, 0.904, **_LITE_FIELDS),
  "efficientnet_lite4": _variant("lite4", 380, 0.922, **_LITE_FIELDS),
  "efficientnet_es": _variant("es", 224, **_EDGE_FIELDS),
  "efficientnet_em": _variant("em", 240, 0.882, **_EDGE_FIELDS),
  "efficientnet_el": _variant("el", 300, 0.904, **_EDGE_FIELDS),
  "tf_efficientnet_lite0": _variant("lite0", 224, **_LITE_FIELDS, **_TF_HALF),
  "tf_efficientnet_lite1": _variant(
    "lite1", 240, 0.882, **_LITE_FIELDS, **_TF_HALF
  ),
  "tf_efficientnet_lite2": _variant(
    "lite2", 260, 0.89, **_LITE_FIELDS, **_TF_HALF
  ),
  "tf_efficientnet_lite3": _variant(
    "lite3", 300, 0.904, interpolation="bilinear", **_LITE_FIELDS, **_TF_HALF
  ),
  "tf_efficientnet_lite4": _variant(
    "lite4", 380, 0.92, interpolation="bilinear", **_LITE_FIELDS, **_TF_HALF
  ),
  "tf_efficientnet_es": _variant("es", 224, **_EDGE_FIELDS, **_TF_HALF),
  "tf_efficientnet_em": _variant("em", 240, 0.882, **_EDGE_FIELDS, **_TF_HALF),
  "tf_efficientnet_el": _variant("el", 300, 0.904, **_EDGE_FIELDS, **_TF_HALF),
  "tf_efficientnetv2_b0": _variant("b0", 192, 0.875, **_V2_FIELDS, **_TF),
  "tf_efficientnetv2_b1": _variant("b1", 192, 0.882, **_V2_FIELDS, **_TF),
  "tf_efficientnetv2_b2": _variant("b2", 208, 0.89, **_V2_FIELDS, **_TF),
  "tf_efficientnetv2_b3": _variant(
    "b3", 240, 0.9, **_V2_FIELDS, **_TF_HALF, **_SQUASH
  ),
  "efficientnetv2_s": {**_S, **_image(288, 1.0)},
  "tf_efficientnetv2_s": {**_S, **_image(300, 1.0), **_TF_HALF},
  "efficientnetv2_m": {**_M, **_image(320, 1.0)},
  "tf_efficientnetv2_m": {**_M, **_image(384, 1.0), **_TF_HALF, **_SQUASH},
  "efficientnetv2_l": {**_L, **_image(384, 1.0)},
  "tf_efficientnetv2_l": {**_L, **_image(384, 1.0), **_TF_HALF, **_SQUASH},
  "efficientnetv2_xl": {**_XL, **_image(384, 1.0)},
  "tf_efficientnetv2_xl": {**_XL, **_image(384, 1.0), **_TF_HALF, **_SQUASH},
  "efficientnetv2_rw_t": {
    **_S,
    "channel_multiplier": 0.8,
    "depth_multiplier": 0.9,
    **_image(224, 1.0),
  },
  "efficientnetv2_rw_s": {**_RW, **_image(288, 1.0)},
  "efficientnetv2_rw_m": {
    **_RW,
    "channel_multiplier": 1.2,
    "depth_multiplier": (1.2, 1.2, 1.2, 1.2, 1.6, 1.6),
    **_image(320, 1.0),
  },
  "tinynet_a": _tiny(1.0, 1.2, 192),
  "tinynet_b": _tiny(0.75, 1.1, 188),
  "tinynet_c": _tiny(0.54, 0.85, 184),
  "tinynet_d": _tiny(0.54, 0.695, 152),
  "tinynet_e": _tiny(0.51, 0.6, 106),
  "test_efficientnet": {
    "arch_def": _TEST,
    "stem_size": 24,
    "head_width": 256,
    "round_limit": 0.0,
    **_image(160, 0.95),
  },
}

RULES = base.RULES


class Model(base.MobileNet):
  """EfficientNet family; `VARIANTS` lists the named members.

  Attributes:
    arch_def: see `MobileNet`.
    act_layer: see `MobileNet`.
    head_width: channels of the last 1x1 convolution, before scaling.
  """

  arch_def: tuple[str, ...] = _B
  act_layer: str = "silu"
  head_width: int = 1280

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.head_width < 1:
      raise ValueError(f"head_width is {self.head_width}; it must be > 0")

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution."""
    fixed = self.fix_stem_head
    return self.head_width if fixed else self.scaled(self.head_width)
