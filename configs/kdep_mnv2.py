r"""KDEP, ResNet-50 -> MobileNetV2 on ImageNet (He et al., CVPR 2022).

Command: python -m kd_jax.main --config configs/kdep_mnv2.py
Variants, data and teacher: see kdep_r18.py.

Expected: the paper's MobileNetV2 rows could not be obtained, so no figure is
given. The released code fails for this student (width 512 is hard-coded, it
has 1280); here the width follows the student.
"""

from ml_collections import ConfigDict

from configs.common import kdep_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """Learning rate .1, as in the authors' script for MobileNetV2."""
  config = kdep_imagenet(variant, "mobilenetv2_100", lr=0.1)
  if variant == "smoke":
    config.student.name = "mobilenetv2_035"
    with config.unlocked():
      config.student.overrides.depth_multiplier = 0.1
  return config
