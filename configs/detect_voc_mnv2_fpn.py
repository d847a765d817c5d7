r"""Pascal VOC 2007 and 2012: Faster R-CNN, FPN on MobileNetV2 (KDEP).

Command: python -m kd_jax.main --config configs/detect_voc_mnv2_fpn.py \
  --config.data.dir=DIR/VOCdevkit --config.test.dir=DIR/VOCdevkit \
  --config.init_from=runs/kdep_mnv2
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/mobilenetv2_100.ra_in1k), or nothing: from scratch.
Variants: `:smoke` (seconds, made-up scenes).
Data: VOCdevkit/VOC2007 and VOC2012 as the organisers pack them; 16,551 images
  of both trainval lists, the 4952 of 2007's test list judge (docs/data.md).

Protocol: 18,000 steps of SGD, batch 16, rate .02, divided by 10 at 12,000 and
  16,000, warm-up of 100 steps; shorter side 480 to 800, 800 in evaluation.
  BatchNorm keeps the statistics, scales and biases that it came with. AP as
  Detectron2 judges VOC 2007 (11 points). One run; the authors have two.
  What is other here: images are RGB, normalised as in pre-training (the
  authors' are BGR without division by the standard deviation).

Expected (AP over IoU .5 to .95): 47.2 from KDEP, by a leaderboard page
  (wizwand.com) that does not state the student. The paper's table was not
  reachable, and nothing was measured here.
"""

from ml_collections import ConfigDict

from configs.common_detect import (
  VOC_SIDES,
  detection,
  done,
  mobilenet_fpn,
  voc,
  voc_schedule,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """The authors' run."""
  tiny, _ = split(variant, ("",))
  config = detection(voc(), VOC_SIDES, **voc_schedule())
  mobilenet_fpn(config)
  config.eval.update({"rules": "voc2007", "figure": "ap50"})
  return done(config, tiny)
