r"""FKD, EfficientNet-L2 -> ResNet-50 on ImageNet (Shen & Xing, ECCV 2022).

Command: python -m kd_jax.main --config configs/fkd_r50.py \
  --config.teacher.weights=runs/bank_fkd/bank
Write the bank first: configs/bank_fkd.py. `:smoke` needs that of its `:smoke`.
Mixup and CutMix, which the authors' code has and switches off:
  --config.mix.mixup=.8 --config.mix.cutmix=1.

Expected: top-1 79.8 ("plain" in the authors' README, which this is; 80.1 with
warm-up and colour jitter, which their code does not contain; ReLabel 78.9).
Its README has 486.77 s per epoch on 8 V100, where supervised training takes
579.36 s. Their bank has 500 crops per image, drawn at random; ours are used
one after the other.
"""

from ml_collections import ConfigDict

from configs.common import fkd_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """SGD, rate .1, cosine."""
  return fkd_imagenet(variant, "resnet50", "sgd")
