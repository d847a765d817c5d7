r"""Which teacher, which student: sizes, costs, widths, licences.

Command: python -m kd_jax.main --config configs/which.py \
  --config.output=docs/which.md
Expected: the page docs/which.md; licences are whole where timm is installed.
"""

from ml_collections import ConfigDict

from configs.common import choose


def get_config(variant: str = "") -> ConfigDict:
  """Whom to list, and where to."""
  choose(variant, ("",))
  config = ConfigDict()
  config.task = "which"
  config.output = ""  # a .md file
  config.teachers = (
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_base_patch16_dinov3.lvd1689m",
    "vit_large_patch16_dinov3.lvd1689m",
    "convnext_tiny.dinov3_lvd1689m",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_large_patch14_dinov2.lvd142m",
    "vit_base_patch16_clip_224.openai",
    "vit_base_patch16_siglip_224.webli",
    "vit_pe_core_base_patch16_224.fb",
    "hiera_base_224.mae_in1k_ft_in1k",
    "vit_large_patch16_sapiens2.fb",
    "convnextv2_base.fcmae_ft_in22k_in1k",
    "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "resnet50.a1_in1k",
  )
  config.students = (
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mobilenetv3_large_100",
    "mobilenetv2_100",
    "repvit_m1_0",
    "fastvit_t8",
    "mobileone_s0",
    "efficientvit_b0",
    "hgnetv2_b0",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_tiny",
    "vit_small_patch16_224",
  )
  config.lock()
  return config
