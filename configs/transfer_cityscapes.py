r"""Cityscapes: segmentation on a pre-trained backbone (KDEP, CVPR 2022).

Command: python -m kd_jax.main --config configs/transfer_cityscapes.py \
  --config.data.dir=DIR --config.test.dir=DIR --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:paper`, `:paper_mnv2` (the authors' choice on
  the validation images); `:vit` (ViT-S, AdamW; no protocol of theirs);
  `:smoke`, `:smoke_paper` and so on (seconds, made-up scenes).
Data: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked in DIR;
  2975 finely labelled images for training, 500 of val judge. Or as TFDS
  prepares them (docs/transfer.md).
Heads: docs/transfer.md, for instance --config.head.name=upernet.

Protocol: crops of 512 from images scaled by .5 to 2. 200 epochs of 2975 // 16 =
  185 steps: 37,000; poly rate from .01 (MobileNetV2 .006), heads 10 times;
  auxiliary loss .4 (MobileNetV2: main loss 1.4). Evaluation: windows over 1024
  x 2048, mirrored. By default the rate is one of three and chosen on 10 % of
  the training images, and the last weights count; `:paper` counts the best
  evaluation, every 3700 steps (20 epochs); the authors evaluate after epochs
  160, 180 and 200 only. Two seeds.

Expected (mIoU): 71.93 from KDEP, by a leaderboard page (wizwand.com) that does
  not state the student. The paper's text was not reachable; ViT: not found.
"""

from ml_collections import ConfigDict

from configs.common_segment import pairs, paper_segmentation

NAMES = (
  "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light",
  "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car",
  "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


def get_config(variant: str = "") -> ConfigDict:
  """200 epochs of SGD; see `paper_segmentation`."""
  fields = {"dir": "cityscapes", "classes": NAMES, "mapping": "cityscapes"}
  fields["image_suffix"] = "_leftImg8bit"
  fields["mask_suffix"] = "_gtFine_labelIds"
  train, test = (
    pairs(images=f"leftImg8bit/{part}", masks=f"gtFine/{part}", **fields)
    for part in ("train", "val")
  )
  views = {"long_side": 2048, "eval_size": (1024, 2048)}
  return paper_segmentation(
    variant,
    (train, test),
    views,
    images=2975,
    epochs=200,
    lr=(0.01, 0.006),
    every=20,
  )
