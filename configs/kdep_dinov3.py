r"""KDEP, DINOv3 ViT-B/16 -> a mobile student, on a folder of images.

Command: python -m kd_jax.main --config configs/kdep_dinov3.py \
  --config.data.dir=DIR
Variants: the student: MobileNetV4-conv-small, or `:repvit` (RepViT-M1.0),
  `:fastvit` (FastViT-T8); `:smoke`, `:smoke_repvit`, `:smoke_fastvit`.
Data: any images (docs/data.md). Teacher: timm/vit_base_patch16_dinov3.lvd1689m;
  these weights have a licence of their own, which is not Apache.

The authors' recipe for MobileNetV2, for their 22,500 updates of 512 images: a
tenth of ImageNet, 90 times. For fewer images set steps, and optim.decay_every
to a third of them. MobileNetV4's 1280 features are more than the teacher's 768
directions, which start again then.

Expected: no figure is established; the pair is in no paper.
"""

from ml_collections import ConfigDict

from configs.common import kdep, smoke
from configs.common_dinov3 import STUDENTS, folder, smaller, teacher
from configs.common_scalekd import split


def get_config(variant: str = "") -> ConfigDict:
  """Learning rate .1, as in the authors' script for MobileNetV2."""
  small, kind = split(variant, tuple(STUDENTS))
  config = kdep(22_500, 512, 0.1)
  config.student.name = STUDENTS[kind][0]
  teacher(config)
  folder(config)
  if small:
    smoke(config)
    smaller(config, kind)
  config.lock()
  return config
