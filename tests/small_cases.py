"""Small members of families: what golden/timm/small_*.npz holds.

(name, fields, (height, width) of the images, scale of matrices and kernels).
"""

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

MOBILE_V4 = (
  "er_r1_k3_s2_e2_c8",
  "uir_r1_a3_k5_s2_e2_c8 uir_r1_a3_k3_s1_e2_c8",
  "uir_r1_a5_k0_s2_e2_c16 uir_r1_a0_k0_s1_e2_c16 mqa_r1_k3_h2_s1_v2_d8_c16 "
  "uir_r1_a0_k3_s1_e2_c16",
  "uir_r1_a0_k3_s2_e2_c16 mqa_r1_k3_h3_s1_d4_c16 uir_r1_a3_k0_s1_e2_c16",
  "cn_r1_k1_s1_c24",
)

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
  "efficientvit": [
    (
      "efficientvit_b1",
      {
        "widths": (8, 8, 8, 16, 16),
        "depths": (1, 2, 1, 1, 1),
        "head_dim": 8,
        "head_widths": (16, 24),
      },
      (75, 58),
    ),
    (
      "efficientvit_l1",
      {
        "widths": (8, 8, 8, 16, 16),
        "depths": (1, 2, 1, 1, 1),
        "head_dim": 8,
        "head_widths": (16, 24),
      },
      (75, 58),
    ),
    ("efficientvit_b0", {}, (64, 64)),
  ],
  "efficientnet": [
    ("tinynet_e", {}, (64, 64)),
  ],
  "resnet": [
    ("ecaresnet26t", {"layers": (1, 1, 1, 1)}, (75, 58)),
    ("resnetaa34d", {"layers": (1, 1, 1, 1)}, (64, 64)),
    ("resnetblur50", {"layers": (1, 2, 1, 1), "output_stride": 16}, (75, 58)),
    ("seresnextaa101d_32x8d", {"layers": (1, 1, 1, 1)}, (64, 64)),
    ("resnetblur18", {}, (64, 75)),
  ],
  "vgg": [
    (
      "vgg11_bn",
      {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16)},
      (75, 58),
    ),
    (
      "vgg11",
      {"depths": (1, 1, 1, 2, 1), "widths": (8, 8, 12, 16, 16)},
      (224, 256),
    ),
  ],
  "hgnet": [
    (
      "hgnetv2_b0",
      {"stem_chs": (8, 12), "middle": (8, 8, 8, 8), "widths": (8, 16, 24, 32)},
      (75, 58),
    ),
    (
      "hgnet_tiny",
      {
        "stem_chs": (8, 8, 12),
        "middle": (8, 8, 8, 8),
        "widths": (8, 16, 24, 32),
      },
      (75, 58),
    ),
    ("hgnetv2_b0", {}, (64, 64)),
  ],
  "densenet": [
    (
      "densenetblur121d",
      {"growth_rate": 8, "block_config": (1, 2, 2, 1)},
      (75, 58),
    ),
    ("densenet161", {"growth_rate": 8, "block_config": (1, 2, 2, 1)}, (75, 58)),
    ("densenet121", {}, (64, 64)),
  ],
  "metaformer": [
    (
      "caformer_s18",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      (75, 58),
    ),
    (
      "poolformer_s12",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      (75, 58),
    ),
    (
      "poolformerv2_s12",
      {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 96)},
      (75, 58),
    ),
    (
      "convformer_s18",
      {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
      (64, 64),
    ),
    ("poolformer_s24", {}, (64, 75)),
  ],
  "mobilenetv4": [
    (
      "mobilenetv4_hybrid_medium",
      {"arch_def": MOBILE_V4, "head_width": 32},
      (75, 58),
    ),
    (
      "mobilenetv4_hybrid_large",
      {
        "arch_def": MOBILE_V4,
        "head_width": 32,
        "aa_layer": "blurpc",
        "global_pool": "catavgmax",
      },
      (75, 58),
    ),
    ("mobilenetv4_conv_small_035", {}, (64, 64)),
    ("mobilenetv4_conv_aa_medium", {}, (64, 64)),
    ("mobilenetv4_hybrid_medium_075", {}, (75, 64)),
  ],
  "byobnet": [
    ("test_byobnet", {}, (75, 58)),
    ("mobileone_s0", {"output_stride": 16}, (64, 64)),
    ("repvgg_a0", {}, (64, 75)),
    ("gernet_s", {}, (64, 64)),
    ("resnet51q", {}, (64, 64)),
    ("gcresnext26ts", {}, (64, 64)),
    ("eca_resnext26ts", {}, (64, 64)),
    ("regnetz_b16", {"output_stride": 8}, (64, 64)),
    ("resnet32ts", {}, (75, 64)),
  ],
  "fastvit": [
    (
      "fastvit_mci0",
      {
        "layers": (1, 1, 1, 1),
        "embed_dims": (8, 16, 32, 64),
        "down_patch_size": 5,
      },
      (75, 58),
    ),
    (
      "fastvit_mci3",
      {
        "layers": (1, 1, 1, 1, 1),
        "embed_dims": (8, 16, 16, 32, 64),
        "global_pool": "avgmax",
      },
      (75, 130),
    ),
    ("fastvit_t8", {}, (64, 64)),
    ("fastvit_sa12", {}, (64, 75)),
  ],
  "repvit": [
    (
      "repvit_m0_9",
      {"embed_dim": (8, 16, 24, 32), "depth": (1, 1, 1, 1)},
      (75, 58),
    ),
    (
      "repvit_m1",
      {
        "embed_dim": (8, 16, 24, 32),
        "depth": (1, 1, 1, 1),
        "kernel_size": 5,
        "distillation": False,
      },
      (75, 58),
    ),
    ("repvit_m1_0", {}, (64, 64)),
  ],
}
