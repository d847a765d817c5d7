"""More named vision transformers of timm; see `variants`."""

from __future__ import annotations

from typing import Any

from kd_jax.models import backbone
from kd_jax.models.vit import variants
from kd_jax.models.vit.variants import group

_IMAGENET = {"mean": backbone.IMAGENET_MEAN, "std": backbone.IMAGENET_STD}
_CLIP = variants.CLIP_FACTS
_AVG = {"class_token": False, "global_pool": "avg"}
_MEAN = {**_AVG, "fc_norm": False}


def _aim(size: str, **fields: backbone.FieldValue) -> dict[str, dict[str, Any]]:
  names = " ".join(f"aimv2_{size}_patch14_{px}" for px in (224, 336, 448))
  common = {
    **_MEAN,
    **_CLIP,
    "depth": 24,
    "num_classes": 0,
    "crop_pct": 1.0,
    "mlp_ratio": 2.75,
    "qkv_bias": False,
    "proj_bias": False,
    "embed_norm": True,
    "norm_layer": "rms",
    "norm_eps": 1e-5,
    "act_layer": "silu",
    "mlp_layer": "swiglu",
  }
  return group(names, **{**common, **fields})


_AIM = {
  **_aim("large", num_heads=8),
  **_aim("huge", embed_dim=1536, num_heads=12, mlp_ratio=2.6667),
  **_aim("1b", embed_dim=2048, num_heads=16),
  **_aim("3b", embed_dim=3072, num_heads=24, mlp_ratio=2.6667),
}

_BEIT3 = {
  "global_pool": "avg",
  "scale_attn_norm": True,
  "scale_mlp_norm": True,
  "norm_eps": 1e-5,
  "crop_pct": 1.0,
  **_IMAGENET,
}
_BEIT3S = {
  **group("beit3_base_patch16_224 beit3_large_patch16_224", **_BEIT3),
  **group(
    "beit3_giant_patch14_224 beit3_giant_patch14_336",
    mlp_ratio=4.3637,
    **_BEIT3,
  ),
}

_RADIO = {
  **_CLIP,
  "img_size": 512,
  "num_classes": 0,
  "no_embed_class": True,
  "final_norm": False,
  "crop_pct": 1.0,
}
_V3, _V4 = {**_RADIO, "reg_tokens": 7}, {**_RADIO, "reg_tokens": 9}
_RADIOS = {
  **group(
    "vit_base_patch16_radio_v3 vit_large_patch16_radio_v3",
    init_values=1e-5,
    **_V3,
  ),
  **group("vit_huge_patch16_radio_v3", **_V3),
  **group(
    "vit_giant_patch16_radio_v3",
    embed_dim=1536,
    num_heads=24,
    mlp_ratio=4.0,
    **_V3,
  ),
  **group("vit_huge_patch16_radio_v4", **_V4),
  **group("vit_so400m_patch16_radio_v4", mlp_ratio=4304 / 1152, **_V4),
}

_REG1 = {
  **_AVG,
  "no_embed_class": True,
  "init_values": 1e-5,
  "reg_tokens": 1,
  "crop_pct": 0.95,
}
_WEE = {**_REG1, "embed_dim": 256, "num_heads": 4, "mlp_ratio": 5.0}
_DEEP = {"depth": 18, "init_values": 1e-5, "block_fn": "parallel_things"}
_XP = {
  "pre_norm": True,
  "no_embed_class": True,
  "norm_layer": "rms",
  "block_fn": "parallel_scaling",
  "qkv_bias": False,
  "qk_norm": True,
}
_OTHER_BLOCKS = {
  **group("vit_small_patch16_18x2_224 vit_base_patch16_18x2_224", **_DEEP),
  **group(
    """vit_base_patch16_xp_224 vit_large_patch14_xp_224
    vit_huge_patch14_xp_224""",
    **_XP,
  ),
  **group(
    "vit_base_patch16_rpn_224",
    qkv_bias=False,
    init_values=1e-5,
    block_fn="respost",
    **_AVG,
  ),
  **group(
    "vit_pwee_patch16_reg1_gap_256",
    depth=16,
    block_fn="parallel_scaling",
    **_WEE,
  ),
  **group(
    "vit_dpwee_patch16_reg1_gap_256",
    depth=16,
    block_fn="diff_parallel_scaling",
    **_WEE,
  ),
  **group("vit_dwee_patch16_reg1_gap_256", depth=14, attn_layer="diff", **_WEE),
  **group(
    "vit_dlittle_patch16_reg1_gap_256",
    embed_dim=320,
    depth=14,
    num_heads=5,
    mlp_ratio=5.6,
    attn_layer="diff",
    **_REG1,
  ),
}

_SIGLIP = {"num_classes": 0, "ragged": True}
_SIGLIPS = {
  **group(
    "vit_so400m_patch14_siglip_384",
    class_token=False,
    global_pool="map",
    **_SIGLIP,
  ),
  **group(
    "vit_so400m_patch14_siglip_gap_384", crop_pct=1.0, **_MEAN, **_SIGLIP
  ),
}

_FLEXI = group(
  "flexivit_small flexivit_base flexivit_large",
  img_size=240,
  no_embed_class=True,
  crop_pct=0.95,
)

_TINY = {"img_size": 160, "crop_pct": 0.95}
_POOLED = {
  **_TINY,
  "class_token": False,
  "reg_tokens": 1,
  "init_values": 1e-5,
}
_NARROW = {"embed_dim": 64, "num_heads": 2, "mlp_ratio": 3.0}
_WIDER = {"embed_dim": 96, "depth": 9, "num_heads": 3}
_TESTS = {
  **group("test_vit", depth=6, **_NARROW, **_TINY),
  **group("test_vit2", depth=8, global_pool="avg", **_NARROW, **_POOLED),
  **group(
    "test_vit3",
    mlp_ratio=2.0,
    global_pool="map",
    pool_include_prefix=True,
    **_WIDER,
    **_POOLED,
  ),
  **group(
    "test_vit4",
    mlp_ratio=3.0,
    global_pool="avg",
    norm_layer="rms",
    **_WIDER,
    **_POOLED,
  ),
}

TABLE = {
  **_AIM,
  **_BEIT3S,
  **_RADIOS,
  **_OTHER_BLOCKS,
  **_SIGLIPS,
  **_FLEXI,
  **_TESTS,
}
"""{name: fields of `vit.Model`}."""
