r"""FKD, EfficientNet-L2 -> ResNet-101 on ImageNet (Shen & Xing, ECCV 2022).

Command: python -m kd_jax.main --config configs/fkd_r101.py \
  --config.teacher.weights=runs/bank_fkd/bank
Write the bank first: configs/bank_fkd.py. Recipe: configs/fkd_r50.py.

Expected: top-1 81.7 ("plain" in the authors' README; 81.9 with warm-up and
colour jitter; ReLabel 80.7).
"""

from ml_collections import ConfigDict

from configs.common import fkd_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """SGD, rate .1, cosine."""
  return fkd_imagenet(variant, "resnet101", "sgd")
