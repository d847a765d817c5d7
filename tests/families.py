"""Small members of families, and how they are judged."""

from __future__ import annotations

from typing import Any, NamedTuple

import zoo

SMALL_V4 = (
  "er_r1_k3_s2_e2_c8",
  "uir_r1_a3_k5_s2_e2_c8",
  "uir_r1_a5_k0_s2_e2_c8 mqa_r1_k3_h2_s1_v2_d4_c8",
  "uir_r1_a0_k3_s2_e2_c8 mqa_r1_k3_h3_s1_d4_c8 cn_r1_k1_s1_c16",
)
SQUARE = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 4}


class Family(NamedTuple):
  """A small member, and how it is judged."""

  name: str
  fields: dict[str, Any]
  # Cases with golden outputs that compile quickly: indices or architectures.
  quick: tuple[int | str, ...] = (0,)
  error: float = 0.15  # of 'pooled' in bfloat16
  invisible: tuple[str, ...] = ()  # to which the network is invariant
  shapes: dict[str, tuple[int, ...]] = {}  # of some taps

  def tiny(self) -> zoo.Tiny:
    """The member with drawn weights."""
    return zoo.Tiny(self.name, **self.fields)


FAMILIES = {
  "efficientvit": Family(
    "efficientvit_b0",
    {
      "widths": (8, 8, 8, 16, 16),
      "depths": (1, 2, 1, 1, 1),
      "head_dim": 8,
      "head_widths": (16, 24),
    },
  ),
  "vgg": Family(
    "vgg11",
    {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16), "head_width": 16},
  ),
  "hgnet": Family(
    "hgnetv2_b0",
    {
      "stem_chs": (8, 12),
      "middle": (8, 8, 8, 8),
      "widths": (8, 16, 24, 32),
      "head_hidden_size": 16,
    },
    quick=(0, 1),
  ),
  "densenet": Family(
    "densenet121", {"growth_rate": 4, "block_config": (1, 2, 1, 1)}
  ),
  "metaformer": Family(
    "caformer_s18",
    {"depths": (1, 1, 1, 1), "dims": (8, 8, 32, 32)},
    quick=(0, 1),
  ),
  "mobilenetv4": Family(
    "mobilenetv4_hybrid_medium",
    {"arch_def": SMALL_V4, "head_width": 16, "layer_scale_init_value": 0.5},
  ),
  "repvit": Family(
    "repvit_m1_0",
    {"embed_dim": (8, 8, 16, 16), "depth": (1, 1, 2, 1)},
    quick=(0, 1),
  ),
  "byobnet": Family(
    "repvgg_a0",
    {
      "blocks": (
        "rep_d2_c8_s2",
        "rep_d2_c8_s2_g2",
        "one_d1_c8_s2_g1_n2 one_d1_c16_k1_se",
        "one_d1_c16_s2_n2 rep_d1_c16 bottle_d1_c16_g4",
      ),
      "stem_chs": 8,
    },
  ),
  "fastvit": Family(
    "fastvit_sa12",
    {
      "layers": (1, 1, 1, 1),
      "embed_dims": (8, 8, 16, 32),
      "layer_scale_init_value": 0.5,
    },
  ),
  "ghostnet": Family(
    "ghostnetv2_100",
    {"width": 0.1, "depths": (1, 1, 0, 1, 0, 1, 0, 1, 0)},
    quick=(1,),
  ),
  "hiera": Family(
    "hiera_small_abswin_256",
    {
      "img_size": 64,
      "embed_dim": 8,
      "num_heads": 1,
      "stages": (1, 1, 1, 1),
      "init_values": 0.5,
    },
    quick=(2,),
    error=0.05,
    shapes={
      "stage1": (16, 16, 8),
      "stage2": (8, 8, 16),
      "stage3": (4, 4, 32),
      "stage4": (2, 2, 64),
    },
  ),
  "sam": Family(
    "samvit_base_patch16",
    {
      **SQUARE,
      "num_heads": 2,
      "window_size": 3,
      "neck_chans": 12,
      "global_attn_indexes": (1, 3),
      "qk_norm": True,
      "init_values": 0.5,
    },
    quick=(0, 1),
    error=0.05,
    shapes={
      "block01": (8, 8, 16),
      "stage2": (8, 8, 16),
      "final": (8, 8, 12),
    },
  ),
  "vitamin": Family(
    "vitamin_small_224",
    {
      "img_size": (32, 48),
      "embed_dim": 16,
      "depth": 4,
      "num_heads": 2,
      "conv_dims": (8, 12),
      "conv_depths": (2, 1),
    },
    error=0.05,
    shapes={
      "stem": (6, 16),
    },
  ),
  "maxxvit": Family(
    "maxvit_rmlp_base_rw_224",
    {
      "img_size": 64,
      "embed_dim": (16, 16, 16, 32),
      "depths": (1, 1, 1, 1),
      "stem_width": (8, 16),
      "transformer_dim_head": 8,
      "block_type": ("M", "PM", ["C", "T"], "T"),
    },
    quick=("coatnet_rmlp_1_rw_224", "maxvit_tiny_tf_224"),
    error=0.1,
    # Softmax and normalisation hide what is added to every key.
    invisible=("rel_pos/fc2/bias",),
    shapes={
      "stage1": (16, 16, 16),
      "stage2": (8, 8, 16),
      "stage3": (4, 4, 16),
      "stage4": (2, 2, 32),
      "pooled": (768,),
    },
  ),
  "tiny_vit": Family(
    "tiny_vit_5m_224",
    {
      "depths": (1, 1, 2, 1),
      "embed_dims": (8, 8, 16, 16),
      "num_heads": (1, 1, 2, 2),
      "window_sizes": (3, 3, 4, 2),
    },
    error=0.1,
  ),
  "xcit": Family(
    "xcit_nano_12_p16_224",
    {"embed_dim": 16, "depth": 4, "num_heads": 2},
    error=0.05,
  ),
  "hybrid": Family(
    "vit_small_r26_s32_224",
    {
      "embed_dim": 16,
      "depth": 4,
      "num_heads": 2,
      "img_size": 32,
      "conv_layers": (1,),
      "patch_size": 8,
    },
    quick=(),
    error=0.05,
  ),
}
# Of families whose goldens are another's.
KIN = {
  "mobilevit": Family(
    "mobilevit_xxs",
    {
      "stem_chs": 8,
      "last_width": 0,
      "blocks": (
        "bottle_d1_c8_g1_b2",
        "bottle_d1_c8_s2_g1_b2",
        "bottle_d1_c8_s2_g1_b2 mobilevit_d1_c8_t1_w16_p2",
        "bottle_d1_c16_s2_g1_b2",
        "bottle_d1_c16_s2_g1_b2 mobilevit_d1_c16_t1_w16_p3",
      ),
    },
    error=0.1,
  ),
  "mobilevit2": Family(
    "mobilevitv2_050",
    {
      "stem_chs": 8,
      "last_width": 0,
      "blocks": (
        "bottle_d1_c8_s2_g1_b2",
        "bottle_d1_c8_s2_g1_b2 mobilevit2_d1_c8_g1_b0.5_t1_p2",
        "bottle_d1_c16_s2_g1_b2",
        "bottle_d1_c16_s2_g1_b2 mobilevit2_d1_c16_g1_b0.5_t2_p3",
      ),
    },
    error=0.1,
  ),
}
