"""Small members of families: what golden/timm/small_*.npz holds.

(name, fields, (height, width) of the images, scale of matrices and kernels).
"""

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
SQUARE = {**TINY, "img_size": 32, "patch_size": 8}

CASES = {
  "eva": [
    ("vit_small_plus_patch16_dinov3_qkvb", SQUARE, (40, 24)),
    ("vit_small_patch16_dinov3", {**SQUARE, "global_pool": "token"}, (32, 32)),
    ("vit_7b_patch16_dinov3", {**SQUARE, "mlp_ratio": 2.1}, (32, 32)),
    (
      "vit_large_patch16_sapiens2",
      {
        **SQUARE,
        "img_size": [24, 40],
        "num_heads": 4,
        "num_kv_heads": [4, 2, 1, 4],
      },
      (32, 24),
    ),
    ("vit_giant_patch16_lingbot", SQUARE, (32, 32)),
    ("vit_betwixt_patch16_rope_reg4_gap_256", SQUARE, (32, 32)),
    ("vit_small_patch16_rope_224", SQUARE, (32, 32)),
    (
      "vit_small_patch16_rope_ape_224",
      {**SQUARE, "img_size": [24, 40]},
      (24, 40),
    ),
    ("vit_small_patch16_rope_mixed_224", SQUARE, (32, 32)),
    (
      "vit_small_patch16_rope_mixed_ape_224",
      {**SQUARE, "img_size": [40, 24]},
      (40, 24),
    ),
    ("vit_pe_core_tiny_patch16_384", {**SQUARE, "num_heads": 4}, (32, 32)),
    ("vit_pe_core_gigantic_patch14_448", SQUARE, (32, 32)),
    ("vit_pe_lang_large_patch14_448", SQUARE, (32, 32)),
    (
      "vit_pe_spatial_gigantic_patch14_448",
      {**SQUARE, "img_size": [24, 40]},
      (24, 40),
    ),
    ("vit_pe_spatial_tiny_patch16_512", SQUARE, (32, 32)),
  ],
  "whole": [
    ("vit_small_patch16_dinov3", {}, (224, 224)),
    ("vit_small_plus_patch16_dinov3_qkvb", {}, (256, 160)),
    ("vit_pe_core_tiny_patch16_384", {}, (384, 384)),
    ("vit_small_patch16_rope_mixed_ape_224", {}, (224, 224)),
  ],
}

# Whose parameters are counted and whose preprocessing is noted.
FACTS = ("eva",)
