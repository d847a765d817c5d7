r"""The bank of FKD on ImageNet: EfficientNet-L2 once, students for ever.

The five most likely classes of every crop, as float16, the rest spread evenly
(marginal smoothing, Shen & Xing, ECCV 2022): crops of 8 to 93.6 % of the
image, bicubic at 475 pixels, mirrored or not, no colours.

Command: python -m kd_jax.main --config configs/bank_fkd.py \
  --workdir runs/bank_fkd
Train from it: configs/fkd_r50.py and its like. What it takes, without writing:
  --config.dry_run=True. Check it: --config.bank.verify=True

Expected: 34 bytes per crop; 13.1 GB for 75 passes of 4 crops, every crop seen
once in 300 epochs. The authors have 500 crops per image: bank.passes=125.
`:smoke` writes a tiny one in seconds.
"""

from ml_collections import ConfigDict

from configs.common import bank_of_fkd, fkd_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """The crops of configs/fkd_r50.py."""
  config = fkd_imagenet(variant, "resnet50", "sgd")
  with config.unlocked():
    codec = {"name": "marginal", "top": 5, "recover": "smooth"}
    codec.update({"temperature": 1.0, "dtype": "float16"})
    bank_of_fkd(config, variant, codec=codec, passes=75)
    if variant == "smoke":
      config.bank.passes = 1
  return config
