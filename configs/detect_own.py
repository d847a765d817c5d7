r"""Your own images with COCO's JSON: detection on a pre-trained backbone.

Command: python -m kd_jax.main --config configs/detect_own.py \
  --config.data.images=DIR/train --config.data.annotations=DIR/train.json \
  --config.test.images=DIR/test --config.test.annotations=DIR/test.json \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:split`, one folder and one file, the last fifth of whose images is
  for test (set both to the same); `:masks` (Mask R-CNN); `:mnv2` (MobileNetV2);
  `:smoke` and so on (seconds, made-up scenes).
Data: a folder of images and a JSON file as COCO has them, which most tools for
  labelling write (docs/data.md). Invalid boxes are errors; skip_invalid=True of
  data and test leaves them out and says how many.

Protocol: Faster R-CNN with a feature pyramid, 5000 steps of SGD, batch 16, rate
  .01, divided by 10 at 3500 and 4500; shorter side 480 to 800, 640 in
  evaluation; BatchNorm keeps its statistics. The numbers are ours. Few images
  of many: --config.transfer.shots=50.

Expected: depends on your images; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_detect import (
  VOC_SIDES,
  coco,
  detection,
  done,
  mobilenet_fpn,
  resnet_fpn,
  with_masks,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """ResNet-18 with a feature pyramid, or another network."""
  tiny, kind = split(variant, ("", "split", "masks", "mnv2"))
  masks = kind == "masks"
  data = coco("", "", split="all", masks=masks, skip_invalid=False)
  test = coco("", "", split="all", masks=masks, skip_invalid=False)
  test.keep_empty = True
  if kind == "split":
    data.split, test.split = "all[:80%]", "all[80%:]"
  config = detection(
    (data, test), VOC_SIDES, steps=5000, milestones=(3500, 4500), warmup=500
  )
  config.optim.update({"lr": 0.01, "warmup_lr": 1e-5})
  config.preprocess.update({"test_short": 640, "test_long": 1066})
  if kind == "mnv2":
    mobilenet_fpn(config)
  else:
    resnet_fpn(config, "resnet18")
  if masks:
    with_masks(config)
  return done(config, tiny)
