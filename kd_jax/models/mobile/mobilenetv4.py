"""MobileNetV4 (arXiv:2404.10518) with timm's names, widths and feature maps.

'conv' are made of universal inverted bottlenecks, 'hybrid' have attention with
shared keys and values in their last two stages. The 1x1 convolution `neck` and
its normalisation follow global pooling. Initialisation: see
`kd_jax.models.mobile.base`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import strides
from kd_jax.models.mobile import base, mbconv, mobilenetv3

_SMALL = (
  "cn_r1_k3_s2_c32 cn_r1_k1_s1_c32",
  "cn_r1_k3_s2_c96 cn_r1_k1_s1_c64",
  "uir_r1_a5_k5_s2_e3_c96 uir_r4_a0_k3_s1_e2_c96 uir_r1_a3_k0_s1_e4_c96",
  "uir_r1_a3_k3_s2_e6_c128 uir_r1_a5_k5_s1_e4_c128 uir_r1_a0_k5_s1_e4_c128 "
  "uir_r1_a0_k5_s1_e3_c128 uir_r2_a0_k3_s1_e4_c128",
  "cn_r1_k1_s1_c960",
)
_MEDIUM = (
  "er_r1_k3_s2_e4_c48",
  "uir_r1_a3_k5_s2_e4_c80 uir_r1_a3_k3_s1_e2_c80",
  "uir_r1_a3_k5_s2_e6_c160 uir_r2_a3_k3_s1_e4_c160 uir_r1_a3_k5_s1_e4_c160 "
  "uir_r1_a3_k3_s1_e4_c160 uir_r1_a3_k0_s1_e4_c160 uir_r1_a0_k0_s1_e2_c160 "
  "uir_r1_a3_k0_s1_e4_c160",
  "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a3_k5_s1_e4_c256 "
  "uir_r1_a0_k0_s1_e4_c256 uir_r1_a3_k0_s1_e4_c256 uir_r1_a3_k5_s1_e2_c256 "
  "uir_r1_a5_k5_s1_e4_c256 uir_r2_a0_k0_s1_e4_c256 uir_r1_a5_k0_s1_e2_c256",
  "cn_r1_k1_s1_c960",
)
_LARGE = (
  "er_r1_k3_s2_e4_c48",
  "uir_r1_a3_k5_s2_e4_c96 uir_r1_a3_k3_s1_e4_c96",
  "uir_r1_a3_k5_s2_e4_c192 uir_r3_a3_k3_s1_e4_c192 uir_r1_a3_k5_s1_e4_c192 "
  "uir_r5_a5_k3_s1_e4_c192 uir_r1_a3_k0_s1_e4_c192",
  "uir_r4_a5_k5_s2_e4_c512 uir_r1_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 "
  "uir_r2_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 uir_r1_a5_k5_s1_e4_c512 "
  "uir_r3_a5_k0_s1_e4_c512",
  "cn_r1_k1_s1_c960",
)
_KV = "mqa_r1_k3_h4_s1_v2_d64_c160 "
_END = " mqa_r1_k3_h4_s1_d64_c256 "
_HYBRID_MEDIUM = (
  *_MEDIUM[:2],
  "uir_r1_a3_k5_s2_e6_c160 uir_r1_a0_k0_s1_e2_c160 uir_r1_a3_k3_s1_e4_c160 "
  f"uir_r1_a3_k5_s1_e4_c160 {_KV}uir_r1_a3_k3_s1_e4_c160 {_KV}"
  f"uir_r1_a3_k0_s1_e4_c160 {_KV}uir_r1_a3_k3_s1_e4_c160 {_KV}"
  "uir_r1_a3_k0_s1_e4_c160",
  "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a3_k5_s1_e4_c256 "
  "uir_r1_a0_k0_s1_e2_c256 uir_r1_a3_k5_s1_e2_c256 uir_r1_a0_k0_s1_e2_c256 "
  f"uir_r1_a0_k0_s1_e4_c256{_END}uir_r1_a3_k0_s1_e4_c256{_END}"
  f"uir_r1_a5_k5_s1_e4_c256{_END}uir_r1_a5_k0_s1_e4_c256{_END}"
  "uir_r1_a5_k0_s1_e4_c256",
  "cn_r1_k1_s1_c960",
)
_KV_L = "mqa_r1_k3_h8_s1_v2_d48_c192 "
_END_L = " mqa_r1_k3_h8_s1_d64_c512 uir_r1_a5_k0_s1_e4_c512"
_HYBRID_LARGE = (
  *_LARGE[:2],
  "uir_r1_a3_k5_s2_e4_c192 uir_r3_a3_k3_s1_e4_c192 uir_r1_a3_k5_s1_e4_c192 "
  "uir_r2_a5_k3_s1_e4_c192 "
  + f"{_KV_L}uir_r1_a5_k3_s1_e4_c192 " * 3
  + _KV_L
  + "uir_r1_a3_k0_s1_e4_c192",
  "uir_r4_a5_k5_s2_e4_c512 uir_r1_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 "
  "uir_r2_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 uir_r1_a5_k5_s1_e4_c512"
  + 4
  * _END_L,
  "cn_r1_k1_s1_c960",
)


def _variant(
  arch: tuple[str, ...],
  size: int,
  crop_pct: float = 0.95,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  if arch in (_LARGE, _HYBRID_LARGE):
    more = {"stem_size": 24, **more}
  if more.get("channel_multiplier", 1.0) != 1.0:
    more = {"fix_stem_head": True, **more}
  image = {"input_size": (3, size, size), "crop_pct": crop_pct}
  return {"arch_def": arch, **image, **more}


_HYBRID: dict[str, Any] = {"layer_scale_init_value": 1e-5}
_GELU: dict[str, Any] = {**_HYBRID, "act_layer": "gelu"}
VARIANTS = {
  "mobilenetv4_conv_small_035": _variant(
    _SMALL, 224, 0.875, channel_multiplier=0.35, **base.HALF
  ),
  "mobilenetv4_conv_small_050": _variant(
    _SMALL, 224, 0.875, channel_multiplier=0.5, **base.HALF
  ),
  "mobilenetv4_conv_small": _variant(_SMALL, 224, 0.875),
  "mobilenetv4_conv_medium": _variant(_MEDIUM, 256),
  "mobilenetv4_conv_large": _variant(_LARGE, 384),
  "mobilenetv4_hybrid_medium": _variant(_HYBRID_MEDIUM, 256, **_HYBRID),
  "mobilenetv4_hybrid_large": _variant(_HYBRID_LARGE, 384, **_GELU),
  "mobilenetv4_conv_aa_medium": _variant(_MEDIUM, 256, aa_layer="avg"),
  "mobilenetv4_conv_blur_medium": _variant(_MEDIUM, 224, aa_layer="blurpc"),
  "mobilenetv4_conv_aa_large": _variant(_LARGE, 448, aa_layer="avg"),
  "mobilenetv4_hybrid_medium_075": _variant(
    _HYBRID_MEDIUM, 224, channel_multiplier=0.75, **_HYBRID
  ),
  "mobilenetv4_hybrid_large_075": _variant(
    _HYBRID_LARGE, 256, channel_multiplier=0.75, **_GELU
  ),
}

RULES = (("norm_head", "params/neck/bn", "norm"), *base.RULES)


class Model(mobilenetv3.Model):
  """MobileNetV4 family; `VARIANTS` lists the named members.

  There is no tap 'final': global pooling reads 'stage4'.

  Attributes:
    arch_def: see `MobileNet`.
    stem_size: see `MobileNet`.
    act_layer: see `MobileNet`.
    head_bias: is not looked at: a normalisation follows.
    aa_layer: pooling in place of the strides of the blocks, a name of
      `strides.POOLS`; '' keeps them.
    layer_scale_init_value: first value of the scales of residual branches; 0
      leaves them out.
  """

  arch_def: tuple[str, ...] = _MEDIUM
  stem_size: int = 32
  act_layer: str = "relu"
  head_bias: bool = False
  aa_layer: str = ""
  layer_scale_init_value: float = 0.0

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("aa_layer", self.aa_layer, ("", *strides.POOLS))
    if self.layer_scale_init_value < 0:
      raise ValueError(
        f"layer_scale_init_value is {self.layer_scale_init_value}; it must be "
        ">= 0, and 0 leaves the scales out"
      )

  @property
  def style(self) -> mbconv.Style:
    """What the layers share."""
    return dataclasses.replace(
      super().style, aa=self.aa_layer, scale=self.layer_scale_init_value
    )

  def neck(self, x: Float[Array, "n c"], train: bool) -> Float[Array, "n d"]:
    """From pooled channels to `feature`; part of `run_stage`."""
    layer = mbconv.Neck(self.head_width, self.style, name="neck")
    return layer(x[:, None, None], train=train)[:, 0, 0]
