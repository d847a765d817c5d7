"""The named vision transformers of timm and what their weights expect.

Width, depth, patch and image size are read off the name.
"""

from __future__ import annotations

import re
from typing import Any

from kd_jax.models import backbone

# embed_dim, depth, num_heads, mlp_ratio.
_SIZES = {
  "tiny": (192, 12, 3, 4.0),
  "wee": (256, 14, 4, 5.0),
  "xsmall": (256, 10, 4, 4.0),
  "little": (320, 14, 5, 5.6),
  "small": (384, 12, 6, 4.0),
  "medium": (512, 12, 8, 4.0),
  "mediumd": (512, 20, 8, 4.0),
  "betwixt": (640, 12, 10, 4.0),
  "base": (768, 12, 12, 4.0),
  "so150m": (896, 18, 14, 2.572),
  "so150m2": (832, 21, 13, 34 / 13),
  "large": (1024, 24, 16, 4.0),
  "intern300m": (1024, 24, 16, 4.0),
  "so400m": (1152, 27, 16, 3.7362),
  "huge": (1280, 32, 16, 4.0),
  "giant": (1408, 40, 16, 48 / 11),
  "giantopt": (1536, 40, 16, 4.0),
  "gigantic": (1664, 48, 16, 64 / 13),
}
_IMAGENET = {"mean": backbone.IMAGENET_MEAN, "std": backbone.IMAGENET_STD}
CLIP_FACTS = {
  "mean": (0.48145466, 0.4578275, 0.40821073),
  "std": (0.26862954, 0.26130258, 0.27577711),
}
_NO_FACTS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def group(
  names: str, **fields: backbone.FieldValue
) -> dict[str, dict[str, Any]]:
  """{name: fields of the model}; `fields` win over what the name says."""
  return {name: _fields(name, **fields) for name in names.split()}


def _fields(name: str, **fields: backbone.FieldValue) -> dict[str, Any]:
  width, depth, heads, ratio = _SIZES.get(name.split("_")[1], _SIZES["base"])
  sizes = re.findall(r"_(\d+)(?:_|$)", name)
  image = fields.get("img_size", int(sizes[-1]) if sizes else 0)
  return {
    "img_size": image,
    "patch_size": int((re.findall(r"patch(\d+)", name) or [16])[0]),
    "embed_dim": width,
    "depth": depth,
    "num_heads": heads,
    "mlp_ratio": ratio,
    "input_size": (3, image, image),
    **fields,
  }


_AVG = {"class_token": False, "global_pool": "avg"}
_MEAN = {**_AVG, "fc_norm": False}
_REG = {**_AVG, "no_embed_class": True, "init_values": 1e-5}
_PLAIN = {
  **group(
    """vit_tiny_patch16_224 vit_small_patch32_224 vit_small_patch16_224
    vit_base_patch32_224 vit_base_patch16_224 vit_base_patch8_224
    vit_large_patch16_224 vit_large_patch14_224 vit_giant_patch14_224
    vit_gigantic_patch14_224"""
  ),
  **group(
    """vit_tiny_patch16_384 vit_small_patch32_384 vit_small_patch16_384
    vit_base_patch32_384 vit_base_patch16_384 vit_large_patch32_384
    vit_large_patch16_384""",
    crop_pct=1.0,
  ),
  **group("vit_large_patch32_224 vit_huge_patch14_224", num_classes=0),
  **group("vit_small_patch8_224", num_classes=0, **_IMAGENET),
  **group("vit_small_patch16_36x1_224", depth=36, init_values=1e-5),
  **group(
    "vit_base_patch16_224_miil",
    qkv_bias=False,
    num_classes=11221,
    interpolation="bilinear",
    crop_pct=0.875,
    **_NO_FACTS,
  ),
  **group(
    "vit_base_patch32_plus_256 vit_base_patch16_plus_240",
    embed_dim=896,
    num_heads=14,
    init_values=1e-5,
    crop_pct=0.95,
  ),
  **group(
    "eva_large_patch14_196 eva_large_patch14_336",
    global_pool="avg",
    crop_pct=1.0,
    **CLIP_FACTS,
  ),
  **group(
    "vit_intern300m_patch14_448",
    num_classes=0,
    init_values=0.1,
    final_norm=False,
    crop_pct=1.0,
    **_IMAGENET,
  ),
}
_POOLED = {
  **group("vit_base_patch16_gap_224", num_heads=16, **_MEAN),
  **group(
    "vit_huge_patch14_gap_224 vit_giant_patch16_gap_224",
    num_classes=0,
    **_MEAN,
    **_IMAGENET,
  ),
  **group(
    "vit_huge_patch16_gap_448",
    num_classes=0,
    crop_pct=1.0,
    **_MEAN,
    **_IMAGENET,
  ),
  **{
    name: {**fields, "qkv_bias": False, "init_values": 1e-6, "crop_pct": 0.95}
    for name, fields in {
      **group("vit_medium_patch16_gap_240", num_classes=11821, **_MEAN),
      **group(
        """vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
        vit_betwixt_patch16_gap_256""",
        **_MEAN,
      ),
    }.items()
  },
  **group(
    """vit_wee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256
    vit_medium_patch16_reg1_gap_256 vit_betwixt_patch16_reg1_gap_256""",
    reg_tokens=1,
    crop_pct=0.95,
    **_REG,
  ),
  **group(
    """vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg4_gap_256
    vit_mediumd_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_256""",
    reg_tokens=4,
    crop_pct=0.95,
    **_REG,
  ),
  **group(
    "vit_mediumd_patch16_reg4_gap_384 vit_betwixt_patch16_reg4_gap_384",
    reg_tokens=4,
    crop_pct=1.0,
    **_REG,
  ),
  **group(
    "vit_base_patch16_reg4_gap_256", reg_tokens=4, no_embed_class=True, **_AVG
  ),
  **group(
    "vit_so150m_patch16_reg4_gap_256", reg_tokens=4, crop_pct=0.95, **_MEAN
  ),
  **group(
    "vit_so150m_patch16_reg4_gap_384", reg_tokens=4, crop_pct=1.0, **_MEAN
  ),
  **group(
    "vit_so150m_patch16_reg4_map_256",
    reg_tokens=4,
    class_token=False,
    global_pool="map",
  ),
  **group(
    """vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384
    vit_so150m2_patch16_reg1_gap_448""",
    reg_tokens=1,
    init_values=1e-5,
    qkv_bias=False,
    crop_pct=1.0,
    **_AVG,
  ),
}


def _clip(
  names: str, **fields: backbone.FieldValue
) -> dict[str, dict[str, Any]]:
  facts = {"crop_pct": 1.0, **CLIP_FACTS}
  return group(names, **{**facts, "pre_norm": True, "norm_eps": 1e-5, **fields})


_QUICK = {"act_layer": "quick_gelu"}
_PLUS = {"embed_dim": 896, "num_heads": 14}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CLIP = {
  **_clip(
    """vit_xsmall_patch16_clip_224 vit_medium_patch32_clip_224
    vit_medium_patch16_clip_224 vit_betwixt_patch32_clip_224""",
    num_classes=512,
    crop_pct=0.9,
  ),
  **_clip("vit_base_patch32_clip_224", crop_pct=0.9),
  **_clip("vit_base_patch32_clip_256", num_classes=512),
  **_clip(
    """vit_base_patch32_clip_384 vit_base_patch32_clip_448
    vit_base_patch16_clip_384 vit_huge_patch14_clip_224
    vit_huge_patch14_clip_336"""
  ),
  **_clip("vit_base_patch16_clip_224", crop_pct=0.95),
  **_clip("vit_base_patch16_plus_clip_240", num_classes=640, **_PLUS),
  **_clip("vit_large_patch14_clip_224 vit_large_patch14_clip_336", **_HALF),
  **_clip("vit_huge_patch14_clip_378", num_classes=1024),
  **_clip("vit_giant_patch14_clip_224", num_classes=1024),
  **_clip(
    "vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378",
    num_classes=1280,
  ),
  **_clip(
    "vit_base_patch32_clip_quickgelu_224",
    num_classes=512,
    crop_pct=0.9,
    **_QUICK,
  ),
  **_clip("vit_base_patch16_clip_quickgelu_224", num_classes=512, **_QUICK),
  **_clip(
    """vit_large_patch14_clip_quickgelu_224
    vit_large_patch14_clip_quickgelu_336""",
    num_classes=768,
    **_QUICK,
  ),
  **_clip(
    "vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378",
    num_classes=1024,
    **_QUICK,
  ),
  **_clip(
    "vit_gigantic_patch14_clip_quickgelu_224", num_classes=1280, **_QUICK
  ),
}


def _siglip(
  prefix: str, sizes: str, **fields: backbone.FieldValue
) -> dict[str, dict[str, Any]]:
  """Both kinds of pooling, without classifier."""
  found = {}
  for size in sizes.split():
    for kind, pool in (("", {**_AVG, "global_pool": "map"}), ("gap_", _MEAN)):
      more = {**pool, "num_classes": 0, **fields}
      found |= group(f"vit_{prefix}_siglip_{kind}{size}", **more)
  return found


_TANH = {"act_layer": "gelu_tanh"}
_SIGLIP = {
  **_siglip("base_patch32", "256", **_TANH),
  **_siglip("base_patch16", "224 256 384 512"),
  **_siglip("large_patch16", "256 384"),
  **_siglip("large_patch16", "512", **_TANH),
  **_siglip("so400m_patch14", "224 378"),
  **group(
    "vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896",
    num_classes=0,
    crop_pct=1.0,
    **_MEAN,
  ),
  **_siglip("so400m_patch16", "256 384 512", **_TANH),
  **_siglip("giantopt_patch16", "256 384", **_TANH),
}

_DINO = {
  "img_size": 518,
  "num_classes": 0,
  "init_values": 1e-5,
  "crop_pct": 1.0,
  **_IMAGENET,
}
_TIPS = {**_DINO, "img_size": 448, "init_values": 1.0, **_NO_FACTS}
_REG1 = {"reg_tokens": 1, "no_embed_class": True}
_REG4 = {"reg_tokens": 4, "no_embed_class": True}
_GIANT = {
  "embed_dim": 1536,
  "num_heads": 24,
  "mlp_ratio": 2.66667 * 2,
  "mlp_layer": "swiglu_packed",
  "act_layer": "silu",
}
_DINOV2 = {
  **group(
    """vit_small_patch14_dinov2 vit_base_patch14_dinov2
    vit_large_patch14_dinov2""",
    **_DINO,
  ),
  **group("vit_giant_patch14_dinov2", **_DINO, **_GIANT),
  **group(
    """vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2
    vit_large_patch14_reg4_dinov2""",
    **_DINO,
    **_REG4,
  ),
  **group("vit_giant_patch14_reg4_dinov2", **_DINO, **_GIANT, **_REG4),
  **group(
    "vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2",
    **_TIPS,
    **_REG1,
  ),
  **group(
    "vit_so400m_patch14_reg1_tipsv2",
    mlp_ratio=4304 / 1152,
    **_TIPS,
    **_REG1,
  ),
  **group("vit_giant_patch14_reg1_tipsv2", **_TIPS, **_GIANT, **_REG1),
}

_THREE = {"no_embed_class": True, "init_values": 1e-6, **_IMAGENET}
_DEIT = {
  **group(
    "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224",
    **_IMAGENET,
  ),
  **group("deit_base_patch16_384", crop_pct=1.0, **_IMAGENET),
  **group(
    """deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224
    deit_base_distilled_patch16_224""",
    distilled=True,
    **_IMAGENET,
  ),
  **group(
    "deit_base_distilled_patch16_384",
    distilled=True,
    crop_pct=1.0,
    **_IMAGENET,
  ),
  **group(
    """deit3_small_patch16_224 deit3_medium_patch16_224 deit3_base_patch16_224
    deit3_large_patch16_224 deit3_huge_patch14_224""",
    **_THREE,
  ),
  **group(
    """deit3_small_patch16_384 deit3_base_patch16_384
    deit3_large_patch16_384""",
    crop_pct=1.0,
    **_THREE,
  ),
}

# Whose default weights timm evaluates so; configs of checkpoints win.
_SQUASHED = (
  "eva_large_patch14_336",
  "vit_base_patch16_clip_384",
  "vit_gigantic_patch14_clip_378",
  "vit_huge_patch14_clip_336",
  "vit_large_patch14_clip_336",
  "vit_medium_patch16_gap_384",
  "vit_so150m2_patch16_reg1_gap_448",
)
_ALL = {**_PLAIN, **_POOLED, **_CLIP, **_SIGLIP, **_DINOV2, **_DEIT}
TABLE = _ALL | {n: {**_ALL[n], "crop_mode": "squash"} for n in _SQUASHED}
"""{name: fields of `vit.Model`}."""
