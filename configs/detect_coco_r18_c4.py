r"""COCO 2017: Mask R-CNN C4 on ResNet-18 (KDEP).

Command: python -m kd_jax.main --config configs/detect_coco_r18_c4.py \
  --config.data.images=DIR/train2017 --config.test.images=DIR/val2017 \
  --config.data.annotations=DIR/annotations/instances_train2017.json \
  --config.test.annotations=DIR/annotations/instances_val2017.json \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:boxes` (no masks); `:smoke`, `:smoke_boxes` (seconds, made-up
  scenes).
Data: COCO 2017 as its organisers pack it; training images without objects are
  left out, all 5000 of val2017 judge (docs/data.md).

Protocol: 90,000 steps of SGD, batch 16, rate .02, divided by 10 at 60,000 and
  80,000, warm-up of 1000 steps; shorter side 640 to 800, 800 in evaluation.
  BatchNorm is trained on the batches of all devices, has an extra layer behind
  the box head and is re-estimated on 200 batches before it is judged. One run;
  the authors have two. What is other here: images are RGB (the authors feed BGR
  with the mean and deviation of RGB), and the box head is ResNet-18's own
  stage4 (theirs is made of bottlenecks).

Expected: the paper's table was not reachable; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_detect import (
  COCO_SIDES,
  coco2017,
  coco_schedule,
  detection,
  done,
  resnet_c4,
  with_masks,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """The authors' run."""
  tiny, kind = split(variant, ("", "boxes"))
  masks = kind != "boxes"
  config = detection(coco2017(masks), COCO_SIDES, **coco_schedule())
  resnet_c4(config)
  if masks:
    with_masks(config)
  return done(config, tiny)
