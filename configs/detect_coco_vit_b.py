r"""COCO 2017: Mask R-CNN on a plain ViT-B (ViTDet, arXiv:2203.16527).

Command: python -m kd_jax.main --config configs/detect_coco_vit_b.py \
  --config.data.images=DIR/train2017 --config.test.images=DIR/val2017 \
  --config.data.annotations=DIR/annotations/instances_train2017.json \
  --config.test.annotations=DIR/annotations/instances_val2017.json \
  --config.init_from=runs/scalekd_vit_b
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/vit_base_patch16_224.mae), or nothing: from scratch.
Variants: `:smoke` (seconds, made-up scenes).
Data: COCO 2017 as its organisers pack it; training images without objects are
  left out, all 5000 of val2017 judge (docs/data.md).

Protocol: 184,375 steps (100 epochs) of AdamW, batch 64, rate 1e-4, divided by
  10 at 163,889 and 177,546, warm-up of 250 steps, weight decay .1, rates that
  fall by .7 a block, stochastic depth .1; squares of 1024 pixels, scaled by .1
  to 2 (large-scale jitter). Source: Detectron2, projects/ViTDet.
  What is other here: every block attends to all 4096 patches, where ViTDet has
  windows in 8 of 12 blocks, so that a step needs more memory and time; the box
  head has two linear layers instead of four convolutions; relative positions
  are those of the student.

Expected (AP of val2017): 51.6 of boxes and 45.9 of masks by ViTDet's model zoo
  from MAE, with its own attention and heads. Nothing was measured here.
"""

from ml_collections import ConfigDict

from configs.common_detect import coco2017, detection, done, vitdet, with_masks
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """ViTDet's run, but for what stands above."""
  tiny, _ = split(variant, ("",))
  config = detection(
    coco2017(masks=True),
    (1024,),
    steps=184_375,
    milestones=(163_889, 177_546),
    warmup=250,
  )
  vitdet(config)
  with_masks(config)
  return done(config, tiny)
