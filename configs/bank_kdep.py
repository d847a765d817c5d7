r"""The teacher's bank for KDEP on ImageNet: ResNet-50 once, students for ever.

Stores the 512 leading directions of every crop after SVD and power scaling,
one byte each (He et al., CVPR 2022; bank as in FKD, Shen & Xing, ECCV 2022).

Command: python -m kd_jax.main --config configs/bank_kdep.py \
  --workdir runs/bank_kdep --config.bank.passes=90
Train from it: configs/kdep_r18_bank.py. What it takes, without writing:
  --config.dry_run=True. Check it: --config.bank.verify=True

Expected: 526 bytes per crop; 6.1 GB for 90 passes over 10 % of ImageNet
(128,000 images). `:smoke` writes a tiny one in seconds.
"""

from ml_collections import ConfigDict

from configs.common import bank, kdep_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """The crops of configs/kdep_r18.py; the variants are those of it."""
  config = kdep_imagenet(variant, "resnet18", lr=0.3)
  with config.unlocked():
    bank(config, codec={"name": "aligned", "width": 512, "dtype": "int8"})
    if variant == "smoke":
      config.bank.shard = 32
      config.bank.codec.width = 8
  return config
