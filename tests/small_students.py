"""As `small_cases`: members of the families of today's students."""

MOBILE_V4 = (
  "er_r1_k3_s2_e2_c8",
  "uir_r1_a3_k5_s2_e2_c8 uir_r1_a3_k3_s1_e2_c8",
  "uir_r1_a5_k0_s2_e2_c16 uir_r1_a0_k0_s1_e2_c16 mqa_r1_k3_h2_s1_v2_d8_c16 "
  "uir_r1_a0_k3_s1_e2_c16",
  "uir_r1_a0_k3_s2_e2_c16 mqa_r1_k3_h3_s1_d4_c16 uir_r1_a3_k0_s1_e2_c16",
  "cn_r1_k1_s1_c24",
)

CASES = {
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
  "ghostnet": [
    (
      "ghostnetv3_050",
      {"width": 0.25, "depths": (1, 1, 0, 1, 0, 1, 1, 1, 0)},
      (75, 58),
    ),
    (
      "ghostnetv2_100",
      {"width": 0.25, "depths": (1, 1, 1, 1, 1, 1, 5, 1, 4)},
      (64, 75),
    ),
    ("ghostnet_050", {}, (64, 64)),
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
    ("mobilevit_xxs", {}, (75, 58)),
    ("mobilevitv2_050", {}, (75, 58)),
  ],
  "hybrid": [
    (
      "vit_small_r26_s32_224",
      {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": (64, 96)},
      (64, 96),
    ),
    (
      "vit_base_r50_s16_384",
      {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 32},
      (32, 32),
    ),
    (
      "vit_tiny_r_s16_p8_224",
      {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": (64, 32)},
      (64, 32),
    ),
    (
      "vit_base_mci_224",
      {"depth": 4, "img_size": (32, 48), "mlp_ratio": 1.0},
      (32, 48),
    ),
    ("vit_tiny_r_s16_p8_224", {}, (224, 224)),
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
  "xcit": [
    (
      "xcit_nano_12_p16_224",
      {"embed_dim": 32, "depth": 4, "num_heads": 2},
      (64, 96),
    ),
    (
      "xcit_tiny_24_p8_384",
      {"embed_dim": 32, "depth": 6, "num_heads": 2, "eta": 0.5},
      (40, 64),
    ),
    (
      "xcit_small_12_p8_224",
      {
        "embed_dim": 32,
        "depth": 4,
        "num_heads": 2,
        "global_pool": "avg",
        "tokens_norm": False,
      },
      (40, 40),
    ),
    ("xcit_nano_12_p16_224", {}, (96, 64)),
  ],
  "mixer": [
    (
      "gmixer_12_224",
      {
        "img_size": (24, 40),
        "patch_size": 8,
        "num_blocks": 4,
        "embed_dim": 32,
        "mlp_ratio": (1.0, 3.0),
      },
      (24, 40),
    ),
    (
      "resmlp_24_224",
      {
        "img_size": (24, 40),
        "patch_size": 8,
        "num_blocks": 4,
        "embed_dim": 32,
        "mlp_ratio": (1.0, 3.0),
      },
      (24, 40),
    ),
    (
      "gmlp_ti16_224",
      {
        "img_size": (24, 40),
        "patch_size": 8,
        "num_blocks": 4,
        "embed_dim": 32,
        "mlp_ratio": (1.0, 3.0),
      },
      (24, 40),
    ),
    ("resmlp_12_224", {}, (224, 224)),
  ],
  "tiny_vit": [
    (
      "tiny_vit_5m_224",
      {
        "depths": (1, 1, 2, 1),
        "embed_dims": (16, 16, 32, 32),
        "num_heads": (1, 1, 2, 4),
        "window_sizes": (3, 3, 4, 2),
      },
      (75, 58),
    ),
    (
      "tiny_vit_21m_384",
      {
        "depths": (1, 1, 2, 1),
        "embed_dims": (16, 16, 32, 32),
        "num_heads": (1, 1, 2, 4),
        "window_sizes": (3, 3, 4, 2),
        "local_conv_size": 5,
        "mlp_ratio": 3.0,
      },
      (64, 64),
    ),
    ("tiny_vit_5m_224", {}, (64, 96)),
  ],
}
