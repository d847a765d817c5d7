r"""The bank of ReLabel on ImageNet: label maps of EfficientNet-L2.

The five largest scores of each of 15 x 15 cells of the whole image, at 475 x
475 pixels (Yun et al., CVPR 2021), one map per image for all its crops.

Command: python -m kd_jax.main --config configs/bank_relabel.py \
  --workdir runs/bank_relabel
Train from it: configs/relabel_r50.py. What it takes, without writing:
  --config.dry_run=True. Check it: --config.bank.verify=True

Expected: 4514 bytes per image, 5.8 GB (the authors' archive: 12 GB, float32).
`:smoke` writes a tiny one in seconds.
"""

from ml_collections import ConfigDict

from configs.common import bank_of_fkd, fkd_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """One view of every image."""
  config = fkd_imagenet(variant, "resnet50", "sgd")
  with config.unlocked():
    codec = {"name": "label_map", "top": 5, "dtype": "float16"}
    bank_of_fkd(config, variant, codec={**codec, "corner_order": "xy"})
    config.preprocess.update({"num_crops": 1, "augment": "squash"})
  return config
