r"""KDEP, ResNet-50 -> ResNet-18, with the teacher's taps from a bank.

The same method and recipe as configs/kdep_r18.py; the teacher does not run.

Command: python -m kd_jax.main --config configs/kdep_r18_bank.py \
  --config.teacher.weights=runs/bank_kdep/bank
Write the bank first: configs/bank_kdep.py

Expected: as configs/kdep_r18.py up to the rounding to 8 bits; no published
figure. Epochs beyond the bank's passes see its crops again.
"""

from ml_collections import ConfigDict

from configs.common import kdep_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """The variants of configs/kdep_r18.py."""
  config = kdep_imagenet(variant, "resnet18", lr=0.3)
  with config.unlocked():
    config.teacher.update({"source": "bank", "name": "", "overrides": {}})
    config.teacher.weights = "runs/bank_kdep/bank"
    if variant == "smoke":
      config.student.overrides.channels = (8, 8, 8, 8)
      config.student.overrides.stem_width = 8
  return config
