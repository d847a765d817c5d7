r"""ScaleKD, DINOv3 ViT-B/16 -> a mobile student, on a folder, without labels.

Command: python -m kd_jax.main --config configs/scalekd_dinov3.py \
  --config.data.dir=DIR
Variants: the student: MobileNetV4-conv-small, or `:repvit` (RepViT-M1.0),
  `:fastvit` (FastViT-T8); `:smoke`, `:smoke_repvit`, `:smoke_fastvit`.
Data: any images (docs/data.md). Teacher: timm/vit_base_patch16_dinov3.lvd1689m;
  these weights have a licence of their own, which is not Apache.

The traditional recipe of ScaleKD's code (SGD) for 100 passes over ImageNet;
set steps, and optim.decay_every to 3 of 10 of them, for other folders. A term
sums over the teacher's positions, of which there are 196 and not Swin's 49, so
that its weights are a quarter of Swin's.

Expected: no figure is established; the pair is in no paper.
"""

from ml_collections import ConfigDict

from configs.common_dinov3 import STUDENTS, folder, smaller, teacher
from configs.common_scalekd import (
  scalekd,
  split,
  tiny,
  traditional,
  unlabelled,
)


def get_config(variant: str = "") -> ConfigDict:
  """SGD, with the last two maps of each network."""
  small, kind = split(variant, tuple(STUDENTS))
  name, last, _ = STUDENTS[kind]
  config = scalekd(
    "dinov3_b",
    name,
    traditional(),
    taps=("stage3", last),
    heads=(12, 12),
    sharpness=0.2,
    task="ce",
  )
  unlabelled(config)
  folder(config)
  if small:
    tiny(config, {}, ("stage3", last))
    unlabelled(config)
    teacher(config)
    smaller(config, kind)
  config.lock()
  return config
