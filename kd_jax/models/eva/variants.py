"""The named members of EVA's kin and what their weights expect.

Patch and image size are read off the name.
"""

from __future__ import annotations

import re
from typing import Any

from kd_jax.models import backbone

Fields = dict[str, Any]
"""Fields of a model."""

# embed_dim, depth, num_heads.
_SIZES = {
  "tiny": (192, 12, 3),
  "small": (384, 12, 6),
  "medium": (512, 12, 8),
  "mediumd": (512, 20, 8),
  "betwixt": (640, 12, 10),
  "base": (768, 12, 12),
  "large": (1024, 24, 16),
}
_IMAGENET: Fields = {
  "mean": backbone.IMAGENET_MEAN,
  "std": backbone.IMAGENET_STD,
}
_HALF: Fields = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def _group(
  names: str,
  size: tuple[int, int, int] | None = None,
  **fields: backbone.FieldValue,
) -> dict[str, Fields]:
  """{name: fields of the model}; `fields` win over what the name says."""
  return {name: _fields(name, size, **fields) for name in names.split()}


def _fields(
  name: str,
  size: tuple[int, int, int] | None,
  **fields: backbone.FieldValue,
) -> Fields:
  parts = re.split(r"[_.]", name)
  width, depth, heads = size or next(
    _SIZES[part] for part in parts if part in _SIZES
  )
  image = fields.get("img_size", int(parts[-1]) if parts[-1].isdigit() else 0)
  pair = image if isinstance(image, tuple) else (image, image)
  return {
    "embed_dim": width,
    "depth": depth,
    "num_heads": heads,
    "patch_size": int(re.findall(r"patch(\d+)", name)[0]),
    "img_size": image,
    "input_size": (3, *pair),
    "crop_pct": 0.9 if image == 224 else 1.0,
    **fields,
  }


_EVA02: Fields = {
  "mlp_ratio": 4 * 2 / 3,
  "swiglu_mlp": True,
  "use_rot_pos_emb": True,
  "ref_feat_shape": (16, 16),
}
_WIDE: Fields = {**_EVA02, "qkv_fused": False, "scale_mlp": True}
_CLIP: Fields = {**_WIDE, "scale_attn_inner": True, "global_pool": "token"}
_GIANT: Fields = {"size": (1408, 40, 16), "mlp_ratio": 6144 / 1408}
_MIM: Fields = {"num_classes": 0}
_SQUASH: Fields = {"crop_mode": "squash"}
_EVA = {
  **_group("eva_giant_patch14_224", **_GIANT),
  **_group("eva_giant_patch14_336", **_GIANT, **_SQUASH),
  **_group("eva_giant_patch14_560", **_GIANT, **_IMAGENET, **_SQUASH),
  **_group(
    "eva_giant_patch14_clip_224",
    **_GIANT,
    global_pool="token",
    num_classes=1024,
  ),
  **_group("eva02_tiny_patch14_224 eva02_small_patch14_224", **_EVA02, **_MIM),
  **_group("eva02_tiny_patch14_336 eva02_small_patch14_336", **_EVA02),
  **_group("eva02_base_patch14_224 eva02_large_patch14_224", **_WIDE, **_MIM),
  **_group(
    "eva02_base_patch14_448 eva02_large_patch14_448", **_WIDE, **_SQUASH
  ),
  **_group("eva02_base_patch16_clip_224", num_classes=512, **_CLIP),
  **_group(
    "eva02_large_patch14_clip_224 eva02_large_patch14_clip_336",
    num_classes=768,
    **_CLIP,
  ),
  **_group(
    "eva02_enormous_patch14_clip_224",
    (1792, 64, 16),
    mlp_ratio=15360 / 1792,
    use_post_norm=True,
    global_pool="token",
    num_classes=1024,
  ),
}

_ROTATED: Fields = {"use_rot_pos_emb": True, "use_abs_pos_emb": False}
_CENTRED: Fields = {
  **_ROTATED,
  **_IMAGENET,
  "dynamic_img_size": True,
  "num_classes": 0,
  "rope_type": "dinov3",
  "rope_temperature": 100.0,
  "rope_rotate_half": True,
  "use_fc_norm": False,
}
_DINO: Fields = {
  **_CENTRED,
  "init_values": 1e-5,
  "num_reg_tokens": 4,
  "norm_eps": 1e-5,
}
_DINOV3: Fields = {**_DINO, "img_size": 256}
_PLUS: Fields = {"swiglu_mlp": True, "swiglu_align_to": 8}
_HUGE: Fields = {"size": (1280, 32, 20), **_PLUS}
_DINOV3S = {
  **_group(
    "vit_small_patch16_dinov3 vit_base_patch16_dinov3 vit_large_patch16_dinov3",
    qkv_bias=False,
    **_DINOV3,
  ),
  **_group(
    """vit_tiny_patch16_dinov3_qkvb vit_small_patch16_dinov3_qkvb
    vit_base_patch16_dinov3_qkvb vit_large_patch16_dinov3_qkvb""",
    **_DINOV3,
  ),
  **_group("vit_small_plus_patch16_dinov3", qkv_bias=False, **_DINOV3, **_PLUS),
  **_group("vit_small_plus_patch16_dinov3_qkvb", **_DINOV3, **_PLUS),
  **_group("vit_huge_plus_patch16_dinov3", qkv_bias=False, **_DINOV3, **_HUGE),
  **_group("vit_huge_plus_patch16_dinov3_qkvb", **_DINOV3, **_HUGE),
  **_group(
    "vit_7b_patch16_dinov3",
    (4096, 40, 32),
    qkv_bias=False,
    mlp_ratio=2.0,
    **{**_DINOV3, **_PLUS, "swiglu_align_to": 64},
  ),
}

_LINGBOT: Fields = {
  **_DINO,
  "img_size": 512,
  "global_pool": "token",
  "interpolation": "bilinear",
  **_SQUASH,
}
_LINGBOTS = {
  **_group(
    """vit_small_patch16_lingbot vit_base_patch16_lingbot
    vit_large_patch16_lingbot""",
    **_LINGBOT,
  ),
  **_group(
    "vit_giant_patch16_lingbot",
    (1536, 40, 24),
    qkv_bias=False,
    mlp_ratio=4 * 2 / 3,
    **_LINGBOT,
    **_PLUS,
  ),
}


def _sapiens2(
  name: str, width: int, depth: int, heads: int
) -> dict[str, Fields]:
  """The blocks but the first and last 8 have half the heads of key, value."""
  kv_heads = [
    heads if min(i, depth - 1 - i) < 8 else heads // 2 for i in range(depth)
  ]
  return _group(
    name,
    (width, depth, heads),
    num_kv_heads=tuple(kv_heads),
    img_size=(1024, 768),
    attn_type="rope",
    qkv_fused=False,
    qk_norm=True,
    global_pool="token",
    swiglu_mlp=True,
    init_values=1.0,
    attn_only_layer_scale=True,
    num_reg_tokens=8,
    norm_layer="rms",
    interpolation="bilinear",
    **_CENTRED,
    **_SQUASH,
  )


_SAPIENS: Fields = {
  **_sapiens2("vit_base_patch16_sapiens2", 768, 12, 12),
  **_sapiens2("vit_large_patch16_sapiens2", 1024, 24, 16),
  **_sapiens2("vit_huge_patch16_sapiens2", 1280, 32, 16),
  **_sapiens2("vit_giant_patch16_sapiens2", 1536, 40, 24),
  **_sapiens2("vit_5b_patch16_sapiens2", 2432, 56, 32),
}

_SBB: Fields = {
  **_ROTATED,
  "init_values": 1e-5,
  "class_token": False,
  "ref_feat_shape": (16, 16),
  "crop_pct": 0.95,
}
_REG1: Fields = {**_SBB, **_HALF, "num_reg_tokens": 1}
_SBBS = {
  **_group(
    """vit_medium_patch16_rope_reg1_gap_256
    vit_base_patch16_rope_reg1_gap_256""",
    **_REG1,
  ),
  **_group("vit_mediumd_patch16_rope_reg1_gap_256", qkv_bias=False, **_REG1),
  **_group("vit_betwixt_patch16_rope_reg4_gap_256", num_reg_tokens=4, **_SBB),
}


def _naver(kind: str, **fields: backbone.FieldValue) -> dict[str, Fields]:
  """With a position embedding ('ape') and without."""
  common = {
    **_IMAGENET,
    "attn_type": "rope",
    "init_values": 1e-5,
    "global_pool": "token",
    "use_rot_pos_emb": True,
    "rope_grid_indexing": "xy",
    **fields,
  }
  found = {}
  for size in ("small", "base", "large"):
    start = f"vit_{size}_patch16_{kind}"
    found |= _group(f"{start}_224", use_abs_pos_emb=False, **common)
    found |= _group(f"{start}_ape_224", no_embed_class=True, **common)
  return found


_NAVER: Fields = {
  **_naver("rope", rope_temperature=100.0),
  **_naver("rope_mixed", rope_type="mixed", rope_temperature=10.0),
}

_PE: Fields = {
  **_HALF,
  "attn_type": "rope",
  "use_rot_pos_emb": True,
  "rope_grid_indexing": "xy",
  "use_pre_transformer_norm": True,
  "norm_eps": 1e-5,
  "crop_pct": 1.0,
}
_CLASS: Fields = {**_PE, "rope_grid_offset": 1.0}
_GIGANTIC: Fields = {
  **_PE,
  "mlp_ratio": 8960 / 1536,
  "class_token": False,
  "ref_feat_shape": (32, 32),
}
_CORE: Fields = {
  "global_pool": "map",
  "attn_pool_num_heads": 8,
  "attn_pool_mlp_ratio": 4.0,
}
_DENSE: Fields = {
  "num_classes": 0,
  "use_post_transformer_norm": False,
  "use_fc_norm": False,
  "ref_feat_shape": (32, 32),
}
_DEEP: Fields = {**_DENSE, "init_values": 0.1}
_PERCEPTION = {
  **_group(
    "vit_pe_core_tiny_patch16_384 vit_pe_core_small_patch16_384",
    num_classes=512,
    ref_feat_shape=(24, 24),
    **_CLASS,
    **_CORE,
  ),
  **_group(
    "vit_pe_core_base_patch16_224",
    num_classes=1024,
    ref_feat_shape=(14, 14),
    **_CLASS,
    **_CORE,
  ),
  **_group(
    "vit_pe_core_large_patch14_336",
    num_classes=1024,
    ref_feat_shape=(24, 24),
    **_CLASS,
    **_CORE,
  ),
  **_group(
    "vit_pe_core_gigantic_patch14_448",
    (1536, 50, 16),
    num_classes=1280,
    **_GIGANTIC,
    **_CORE,
  ),
  **_group("vit_pe_lang_large_patch14_448", (1024, 23, 16), **_CLASS, **_DEEP),
  **_group(
    "vit_pe_lang_gigantic_patch14_448",
    (1536, 47, 16),
    **{**_GIGANTIC, **_DEEP},
  ),
  **_group(
    """vit_pe_spatial_tiny_patch16_512 vit_pe_spatial_small_patch16_512
    vit_pe_spatial_base_patch16_512 vit_pe_spatial_large_patch14_448""",
    **_CLASS,
    **_DENSE,
  ),
  **_group(
    "vit_pe_spatial_gigantic_patch14_448",
    (1536, 50, 16),
    **{**_GIGANTIC, **_DEEP},
  ),
}

TABLE = {
  **_EVA,
  **_DINOV3S,
  **_LINGBOTS,
  **_SAPIENS,
  **_SBBS,
  **_NAVER,
  **_PERCEPTION,
}
"""{name: fields of `eva.Model`}."""
