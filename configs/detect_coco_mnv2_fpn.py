r"""COCO 2017: Faster R-CNN, FPN on MobileNetV2 (KDEP).

Command: python -m kd_jax.main --config configs/detect_coco_mnv2_fpn.py \
  --config.data.images=DIR/train2017 --config.test.images=DIR/val2017 \
  --config.data.annotations=DIR/annotations/instances_train2017.json \
  --config.test.annotations=DIR/annotations/instances_val2017.json \
  --config.init_from=runs/kdep_mnv2
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/mobilenetv2_100.ra_in1k), or nothing: from scratch.
Variants: `:masks` (Mask R-CNN); `:smoke`, `:smoke_masks` (seconds, made-up
  scenes).
Data: COCO 2017 as its organisers pack it; training images without objects are
  left out, all 5000 of val2017 judge (docs/data.md).

Protocol: 90,000 steps of SGD, batch 16, rate .02, divided by 10 at 60,000 and
  80,000, warm-up of 1000 steps; shorter side 640 to 800, 800 in evaluation.
  BatchNorm keeps the statistics, scales and biases that it came with. One run;
  the authors have two. What is other here: images are RGB, normalised as in
  pre-training (the authors' are BGR without division by the deviation).

Expected: the paper's table was not reachable; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_detect import (
  COCO_SIDES,
  coco2017,
  coco_schedule,
  detection,
  done,
  mobilenet_fpn,
  with_masks,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """The authors' run."""
  tiny, kind = split(variant, ("", "masks"))
  masks = kind == "masks"
  config = detection(coco2017(masks), COCO_SIDES, **coco_schedule())
  mobilenet_fpn(config)
  if masks:
    with_masks(config)
  return done(config, tiny)
