"""Small members of families: what golden/timm/small_*.npz holds.

(name, fields, (height, width) of the images, scale of matrices and kernels).
"""

import small_students

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
SQUARE = {**TINY, "img_size": 32, "patch_size": 8}
HIERA = {"embed_dim": 8, "num_heads": 1, "stages": [1, 1, 1, 1]}
VITAMIN = {"depth": 4, "img_size": 48}
COAT = {
  "img_size": [64, 96],
  "embed_dim": [32, 32, 64, 64],
  "depths": [1, 1, 2, 1],
  "stem_width": [16, 32],
}

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
    # Zeros complete the last patches.
    ("vit_small_patch16_dinov3", {**SQUARE, "dynamic_img_pad": True}, (37, 26)),
  ],
  "vit": [
    ("aimv2_large_patch14_224", SQUARE, (32, 32)),
    ("beit3_base_patch16_224", SQUARE, (32, 32)),
    ("flexivit_small", SQUARE, (32, 32)),
    ("vit_base_patch16_radio_v3", {**SQUARE, "init_values": 0.5}, (32, 32)),
    ("vit_small_patch16_18x2_224", SQUARE, (32, 32)),
    ("vit_base_patch16_xp_224", SQUARE, (32, 32)),
    ("vit_base_patch16_rpn_224", SQUARE, (32, 32)),
    ("vit_pwee_patch16_reg1_gap_256", SQUARE, (32, 32)),
    ("vit_dpwee_patch16_reg1_gap_256", {**SQUARE, "qk_norm": True}, (32, 32)),
    ("vit_dwee_patch16_reg1_gap_256", SQUARE, (32, 32)),
    ("vit_so400m_patch14_siglip_384", {**SQUARE, "img_size": 38}, (38, 38)),
    (
      "vit_so400m_patch14_siglip_gap_384",
      {**SQUARE, "img_size": [30, 46]},
      (30, 46),
    ),
    ("test_vit3", {"embed_dim": 32, "depth": 4, "num_heads": 2}, (160, 160)),
    ("test_vit4", {**TINY, "img_size": 32}, (32, 64)),
    (
      "vit_small_patch14_reg4_dinov2",
      {**SQUARE, "dynamic_img_pad": True},
      (37, 50),
    ),
  ],
  "hiera": [
    (
      "hiera_tiny_224",
      {**HIERA, "img_size": [64, 96], "stages": [1, 2, 2, 1]},
      (64, 96),
    ),
    ("hiera_base_abswin_256", {**HIERA, "img_size": [64, 64]}, (64, 64)),
    (
      "hiera_small_abswin_256",
      {**HIERA, "img_size": [96, 64], "stages": [2, 1, 2, 1]},
      (96, 64),
    ),
  ],
  "maxxvit": [
    ("coatnet_0_rw_224", COAT, (64, 96)),
    ("coatnet_2_rw_224", {**COAT, "transformer_init_values": 0.5}, (64, 96)),
    ("coatnet_bn_0_rw_224", COAT, (64, 96)),
    ("coatnet_rmlp_1_rw_224", COAT, (64, 96)),
    ("coatnet_nano_rw_224", COAT, (64, 96)),
    ("coatnext_nano_rw_224", {**COAT, "conv_init_values": 0.5}, (64, 96)),
    (
      "coatnet_nano_cc_224",
      {**COAT, "depths": [1, 1, 2, 2]},
      (64, 96),
    ),
    (
      "coatnet_0_224",
      {**COAT, "head_hidden_size": 48, "stem_width": 32},
      (64, 96),
    ),
    ("maxvit_tiny_rw_224", COAT, (64, 96)),
    ("maxvit_tiny_pm_256", COAT, (64, 96)),
    ("maxvit_rmlp_base_rw_224", {**COAT, "head_hidden_size": 48}, (64, 96)),
    (
      "maxxvit_rmlp_nano_rw_256",
      {**COAT, "conv_init_values": 0.5, "transformer_init_values": 0.5},
      (64, 96),
    ),
    (
      "maxxvitv2_nano_rw_256",
      {**COAT, "conv_init_values": 0.5, "transformer_init_values": 0.5},
      (64, 96),
    ),
    (
      "maxvit_tiny_tf_224",
      {**COAT, "head_hidden_size": 48, "stem_width": 32},
      (64, 96),
    ),
  ],
  "sam": [
    (
      "samvit_base_patch16",
      {**SQUARE, "window_size": 3, "global_attn_indexes": [1, 3]},
      (32, 32),
    ),
    (
      "samvit_base_patch16",
      {
        **SQUARE,
        "window_size": 2,
        "global_attn_indexes": [0],
        "qk_norm": True,
        "init_values": 0.5,
      },
      (40, 24),
    ),
    (
      "samvit_base_patch16_224",
      {**SQUARE, "window_size": 2, "global_attn_indexes": [2]},
      (32, 48),
    ),
  ],
  "vitamin": [
    (
      "vitamin_small_224",
      {**VITAMIN, "embed_dim": 384, "num_heads": 6},
      (48, 48),
    ),
    (
      "vitamin_xlarge_256",
      {**VITAMIN, "embed_dim": 1152, "num_heads": 16, "img_size": [32, 48]},
      (32, 48),
    ),
  ],
  "whole": [
    ("vit_small_patch16_dinov3", {}, (224, 224)),
    ("vit_small_plus_patch16_dinov3_qkvb", {}, (256, 160)),
    ("vit_pe_core_tiny_patch16_384", {}, (384, 384)),
    ("vit_small_patch16_rope_mixed_ape_224", {}, (224, 224)),
    ("vit_dwee_patch16_reg1_gap_256", {}, (256, 256)),
    ("test_vit3", {}, (160, 160)),
    ("samvit_base_patch16_224", {}, (224, 224)),
    ("hiera_tiny_224", {}, (224, 224)),
    ("vitamin_small_224", {}, (224, 224)),
    ("coatnet_pico_rw_224", {}, (224, 224)),
    ("maxvit_rmlp_pico_rw_256", {}, (256, 256)),
  ],
  **small_students.CASES,
}
