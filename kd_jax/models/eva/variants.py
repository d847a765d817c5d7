"""The named members of EVA, and what their files call differently."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax.models import backbone
from kd_jax.models.eva import base


def _variant(
  embed_dim: int,
  depth: int,
  num_heads: int,
  image: int = 224,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  return {
    "embed_dim": embed_dim,
    "depth": depth,
    "num_heads": num_heads,
    "img_size": image,
    "input_size": (3, image, image),
    "crop_pct": 0.9 if image == 224 else 1.0,
    **more,
  }


_EVA02 = {
  "mlp_ratio": 4 * 2 / 3,
  "swiglu_mlp": True,
  "use_rot_pos_emb": True,
  "ref_feat_shape": (16, 16),
}
_WIDE = {**_EVA02, "qkv_fused": False, "scale_mlp": True}
_CLIP = {**_WIDE, "scale_attn_inner": True, "global_pool": "token"}
_TINY, _SMALL = (192, 12, 3), (384, 12, 6)
_BASE, _LARGE = (768, 12, 12), (1024, 24, 16)
_giant = functools.partial(_variant, 1408, 40, 16, mlp_ratio=6144 / 1408)
_MIM = {"num_classes": 0}
_SQUASH = {"crop_mode": "squash"}
TABLE = {
  "eva_giant_patch14_224": _giant(),
  "eva_giant_patch14_336": _giant(336, **_SQUASH),
  "eva_giant_patch14_560": _giant(
    560, mean=backbone.IMAGENET_MEAN, std=backbone.IMAGENET_STD, **_SQUASH
  ),
  "eva_giant_patch14_clip_224": _giant(global_pool="token", num_classes=1024),
  "eva02_tiny_patch14_224": _variant(*_TINY, **_EVA02, **_MIM),
  "eva02_tiny_patch14_336": _variant(*_TINY, 336, **_EVA02),
  "eva02_small_patch14_224": _variant(*_SMALL, **_EVA02, **_MIM),
  "eva02_small_patch14_336": _variant(*_SMALL, 336, **_EVA02),
  "eva02_base_patch14_224": _variant(*_BASE, **_WIDE, **_MIM),
  "eva02_base_patch14_448": _variant(*_BASE, 448, **_WIDE, **_SQUASH),
  "eva02_base_patch16_clip_224": _variant(
    *_BASE, patch_size=16, num_classes=512, **_CLIP
  ),
  "eva02_large_patch14_224": _variant(*_LARGE, **_WIDE, **_MIM),
  "eva02_large_patch14_448": _variant(*_LARGE, 448, **_WIDE, **_SQUASH),
  "eva02_large_patch14_clip_224": _variant(*_LARGE, num_classes=768, **_CLIP),
  "eva02_large_patch14_clip_336": _variant(
    *_LARGE, 336, num_classes=768, **_CLIP
  ),
  "eva02_enormous_patch14_clip_224": _variant(
    1792,
    64,
    16,
    mlp_ratio=15360 / 1792,
    use_post_norm=True,
    global_pool="token",
    num_classes=1024,
  ),
}

_RENAMED = (
  ("mlp.ffn_ln", "mlp.norm"),
  ("attn.inner_attn_ln", "attn.norm"),
  ("mlp.w12", "mlp.fc1"),
  ("mlp.w1", "mlp.fc1_g"),
  ("mlp.w2", "mlp.fc1_x"),
  ("mlp.w3", "mlp.fc2"),
)
_MIM_ONLY = ("mask_token", "lm_head.weight", "lm_head.bias")


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Original files, OpenCLIP's, and of masked-image pre-training.

  Takes the image tower, drops rotations and what only pre-training needs,
  renames, and resizes what depends on image and patch size.
  """
  prefix = next(
    (p for p in ("visual.trunk.", "visual.") if p + "pos_embed" in state_dict),
    "",
  )
  masked = prefix + "mask_token" in state_dict
  split = prefix + "blocks.0.attn.q_proj.weight" in state_dict
  out = {}
  for name, value in state_dict.items():
    if not name.startswith(prefix):
      continue
    name = name.removeprefix(prefix)
    if "rope" in name or (masked and name in _MIM_ONLY):
      continue
    if masked and name.startswith("norm."):
      name = "fc_" + name
    for old, new in _RENAMED:
      name = name.replace(old, new)
    if split:
      name = name.replace(".q_bias", ".q_proj.bias")
      name = name.replace(".v_bias", ".v_proj.bias")
    out[name] = base.fit(name, value, shapes)
  return out
