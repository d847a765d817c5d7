r"""Pascal VOC 2012, augmented: segmentation on a pre-trained backbone (KDEP).

Command: python -m kd_jax.main --config configs/transfer_voc2012.py \
  --config.data.dir=DIR/VOC2012 --config.test.dir=DIR/VOC2012 \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:paper`, `:paper_mnv2` (the authors' choice on
  the validation images); `:vit` (ViT-S, AdamW; no protocol of theirs);
  `:smoke`, `:smoke_paper` and so on (seconds, made-up scenes).
Data: VOC2012 with the 10,582 training masks of SegmentationClassAug, which add
  SBD's, and a list of their names in ImageSets/Segmentation/train_aug.txt; 1449
  images of val.txt judge (docs/transfer.md). TFDS has no masks of VOC.
Heads: docs/transfer.md, for instance --config.head.name=upernet.

Protocol: crops of 512 from images scaled by .5 to 1.5. 50 epochs of 10,582 //
  16 = 661 steps: 33,050; poly rate from .01, heads 10 times; auxiliary loss .4
  (MobileNetV2: main loss 1.4). Evaluation: long side 512, mirrored. By default
  the rate is one of three and chosen on 10 % of the training images, and the
  last weights count; `:paper` counts the best evaluation, every 1322 steps (2
  epochs); the authors evaluate after epochs 48 and 50 only. Two seeds.

Expected (mIoU): 74.28 from KDEP, by a leaderboard page (wizwand.com) that does
  not state the student. The paper's text was not reachable; ViT: not found.
"""

from ml_collections import ConfigDict

from configs.common_segment import pairs, paper_segmentation

NAMES = (
  "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
  "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
  "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def get_config(variant: str = "") -> ConfigDict:
  """50 epochs of SGD; see `paper_segmentation`."""
  fields = {"dir": "VOC2012", "images": "JPEGImages", "classes": NAMES}
  fields["masks"] = "SegmentationClassAug"
  train, test = (
    pairs(list_file=f"ImageSets/Segmentation/{part}.txt", **fields)
    for part in ("train_aug", "val")
  )
  return paper_segmentation(
    variant,
    (train, test),
    {"scale": (0.5, 1.5), "long_side": 512},
    images=10_582,
    epochs=50,
    every=2,
  )
