r"""COCO 2017: Faster R-CNN, FPN on ResNet-50.

Command: python -m kd_jax.main --config configs/detect_coco_r50_fpn.py \
  --config.data.images=DIR/train2017 --config.test.images=DIR/val2017 \
  --config.data.annotations=DIR/annotations/instances_train2017.json \
  --config.test.annotations=DIR/annotations/instances_val2017.json \
  --config.init_from=runs/scalekd_r50
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet50.a1_in1k), or nothing: from scratch.
Variants: `:masks` (Mask R-CNN); `:smoke`, `:smoke_masks` (seconds, made-up
  scenes).
Data: COCO 2017 as its organisers pack it; training images without objects are
  left out, all 5000 of val2017 judge (docs/data.md).

Protocol: 90,000 steps of SGD, batch 16, rate .02, divided by 10 at 60,000 and
  80,000, warm-up of 1000 steps; shorter side 640 to 800, 800 in evaluation.
  BatchNorm keeps the statistics, scales and biases that it came with. This is
  the '1x' of Detectron2's model zoo, which also freezes stem and first stage.

Expected (AP of val2017): Detectron2's zoo has, from supervised weights, 37.9
  (boxes alone), and 38.6 with 35.2 of masks (`:masks`). Nothing was measured
  here.
"""

from ml_collections import ConfigDict

from configs.common_detect import (
  COCO_SIDES,
  coco2017,
  coco_schedule,
  detection,
  done,
  resnet_fpn,
  with_masks,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """Detectron2's '1x'."""
  tiny, kind = split(variant, ("", "masks"))
  masks = kind == "masks"
  config = detection(coco2017(masks), COCO_SIDES, **coco_schedule())
  resnet_fpn(config, "resnet50")
  if masks:
    with_masks(config)
  return done(config, tiny)
