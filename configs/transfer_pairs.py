r"""Your own images with masks: segmentation on a pre-trained backbone.

Command: python -m kd_jax.main --config configs/transfer_pairs.py \
  --config.data.dir=DIR/train --config.test.dir=DIR/test \
  --config.data.classes=3 --config.test.classes=3 \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:split`, one folder, the last fifth of whose sorted pairs is for test
  (--config.data.dir=DIR --config.test.dir=DIR); `:psp` (KDEP's network for
  ResNet-18), `:mnv2`, `:vit` as in transfer_voc2012; `:smoke` and so on
  (seconds, made-up scenes).
Data: DIR/images/a/1.jpg with DIR/masks/a/1.png, the class of every pixel; 255
  is ignored. classes may be names or a file of names (docs/data.md).
Heads: docs/transfer.md, for instance --config.head.name=upernet.

Protocol: crops of 512, 10,000 steps of SGD, batch 16, poly rate, semantic FPN
  at 10 times the rate. The rate is one of three and chosen on 10 % of the
  training images. Images are judged in their own size: preprocess.eval_size has
  to hold the largest, or preprocess.long_side to shrink it. Few masks of many:
  --config.transfer.shots=50.

Expected: depends on your images; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_segment import (
  done,
  mobilenet,
  pairs,
  resnet,
  segmentation,
  vit,
)
from configs.common_transfer import split


def get_config(variant: str = "") -> ConfigDict:
  """ResNet-18 with a feature pyramid, or another network."""
  tiny, kind = split(variant, ("", "split", "psp", "mnv2", "vit"))
  config = segmentation({"long_side": 1024})
  config.steps = 10_000
  config.data, config.test = pairs(dir=""), pairs(dir="")
  config.transfer.update({"seeds": (0, 1), "rates": (0.005, 0.01, 0.02)})
  if kind == "split":
    config.data.split, config.test.split = "all[:80%]", "all[80%:]"
  if kind == "psp":
    resnet(config, aux=0.4)
  if kind == "mnv2":
    mobilenet(config, aux=0.0)
  if kind == "vit":
    vit(config, epochs=100)
  return done(config, tiny)
