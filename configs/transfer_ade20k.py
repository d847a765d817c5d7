r"""ADE20K, 150 classes: segmentation with a pre-trained backbone (KDEP).

Command: python -m kd_jax.main --config configs/transfer_ade20k.py \
  --config.data.dir=DIR/ADEChallengeData2016 \
  --config.test.dir=DIR/ADEChallengeData2016 --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:paper`, `:paper_mnv2` (the authors' choice on
  the validation images); `:vit` (ViT-S, AdamW; no protocol of theirs);
  `:smoke`, `:smoke_paper` and so on (seconds, made-up scenes).
Data: ADEChallengeData2016.zip; 20,210 images for training, 2000 of validation
  judge. TFDS' scene_parse150 is another set: its masks are those of instances.
Heads: docs/transfer.md, for instance --config.head.name=upernet.

Protocol: crops of 512 from images scaled by .5 to 2. 100 epochs of 20,210 // 16
  = 1263 steps: 126,300; poly rate from .01, heads 10 times; auxiliary loss .4
  (MobileNetV2: none). Evaluation: long side 512, mirrored. By default the rate
  is one of three and chosen on 10 % of the training images, and the last
  weights count; `:paper` counts the best evaluation, every 12,630 steps (10
  epochs); the authors evaluate after epochs 80, 90 and 100 (MobileNetV2: 100)
  only. Two seeds. Masks are judged in their own size: preprocess.label_size
  must hold the largest (not checked against the data), and is what memory goes
  to.

Expected (mIoU): 37.3 from KDEP, by a leaderboard page (wizwand.com) that does
  not state the student. The paper's text was not reachable; ViT: not found.
"""

from ml_collections import ConfigDict

from configs.common_segment import pairs, paper_segmentation


def get_config(variant: str = "") -> ConfigDict:
  """100 epochs of SGD; see `paper_segmentation`."""
  train, test = (
    pairs(
      dir="ADEChallengeData2016",
      images=f"images/{part}",
      masks=f"annotations/{part}",
      classes=150,
      mapping="shift",
    )
    for part in ("training", "validation")
  )
  config = paper_segmentation(
    variant,
    (train, test),
    {"long_side": 512, "label_size": (2048, 2048)},
    images=20_210,
    epochs=100,
    aux=(0.4, 0.0),
    every=10,
  )
  with config.unlocked():  # 150 classes in 2048 x 2048 pixels are 2.5 GB
    config.eval.batch_size = 4
  return config
