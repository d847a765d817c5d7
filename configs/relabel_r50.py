r"""ReLabel, EfficientNet-L2 -> ResNet-50 on ImageNet (Yun et al., CVPR 2021).

Command: python -m kd_jax.main --config configs/relabel_r50.py \
  --config.teacher.weights=runs/bank_relabel/bank
Write the bank first: configs/bank_relabel.py. Crops and colours are free, as
one map serves all crops of an image.

Expected: top-1 78.9 (authors' README; ResNet-18 71.7 to 72.5, ResNet-101 78.1
to 80.7). With CutMix and AdamP: 80.2.
"""

from ml_collections import ConfigDict

from configs.common import fkd_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """Nesterov SGD, rate .1 after 5 epochs of warm-up, cosine at every step."""
  config = fkd_imagenet(variant, "resnet50", "sgd")
  with config.unlocked():
    config.teacher.weights = "runs/bank_relabel/bank"
    config.method.single_last = 0.0
    config.optim.update({"nesterov": True, "stairs": ()})
    config.optim.warmup = config.steps // 60 or 1
    config.preprocess.update({"num_crops": 1, "scale": (0.08, 1.0)})
    config.preprocess.color_jitter = (0.4, 0.4, 0.4)
    config.preprocess.lighting = 0.1
  return config
