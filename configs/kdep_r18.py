r"""KDEP, ResNet-50 -> ResNet-18 on ImageNet (He et al., CVPR 2022).

Command: python -m kd_jax.main --config configs/kdep_r18.py
Variants: `:10pct_180`, `:10pct_900` (longer on 128 images per class),
  `:100pct_9`, `:100pct_18`, `:100pct_90` (all of ImageNet), `:smoke`.
Data: imagenet2012 as prepared by TensorFlow Datasets (docs/data.md), or any
  images: --config.data.name=folder --config.data.dir=DIR. Labels are not read;
  --config.eval.evals="('knn',)" --config.eval.limit=0 adds a kNN evaluation on
  ImageNet, with them.

Expected (mean top-1 after fine-tuning on CIFAR-100, DTD, Caltech-256, CUB;
paper, figure 1, teacher MS-R50): 10 %: 75.74 (90 epochs), 77.07 (180), 78.21
(900); 100 %: 76.23 (9), 77.33 (18), 78.40 (90). Supervised pre-training: 71.05
to 77.13 for the same budgets. Microsoft's ResNet-50 is no timm checkpoint: to
reproduce, pass its file with --config.teacher.weights=FILE and
--config.teacher.overrides.channel_order=bgr. For the default teacher
(timm/resnet50.a1_in1k) no published figure exists, and the loss weight, tuned
by the authors for their teacher, may need another value.
"""

from ml_collections import ConfigDict

from configs.common import kdep_imagenet


def get_config(variant: str = "") -> ConfigDict:
  """Learning rate .3, as in the authors' script for ResNet-18."""
  config = kdep_imagenet(variant, "resnet18", lr=0.3)
  if variant == "smoke":
    with config.unlocked():
      config.student.overrides.channels = (8, 8, 8, 8)
      config.student.overrides.stem_width = 8
  return config
