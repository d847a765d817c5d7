r"""DTD, textures: fine-tuning of a pre-trained student (KDEP, CVPR 2022).

Command: python -m kd_jax.main --config configs/transfer_dtd.py \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:paper`, `:paper_mnv2` (the authors' choice on
  the test images); `:vit` (ViT-S, AdamW, EMA, mixup; no protocol of theirs);
  `:smoke`, `:smoke_paper` and so on (seconds, made-up images).
Data: TFDS 'dtd', whose splits are those of DTD's split 1: 1880 images each in
  train, validation and test, 47 classes; TFDS downloads it (docs/data.md).

Protocol: split 1, train and validation against test. 150 epochs of 3760 / 64 =
  58.75 steps: 8812; the rate, 1e-3, falls to a tenth after 2938 and 5876.
  Images are not normalised (mean 0, deviation 1), unlike in pre-training, as in
  the authors' code. By default the rate is one of three and chosen on 10 % of
  the training images, and the last weights count; `:paper` takes 1e-3,
  evaluates on the test images every 293 steps (5 epochs) and counts the best.
  Two seeds.

Expected (top-1): 74.34, ResNet-18 from KDEP. Not from the paper's text, which
  was not reachable, but from a leaderboard page (wizwand.com); that it means
  100 % of ImageNet, MS-R50 as teacher and `:paper` is our inference. Mean of
  the four sets: 78.40 (figure 1 of the paper). MobileNetV2, ViT: not found.
"""

from ml_collections import ConfigDict

from configs.common_classify import paper_classification
from configs.common_transfer import tfds


def get_config(variant: str = "") -> ConfigDict:
  """150 epochs of SGD; see `paper_classification`."""
  return paper_classification(
    variant,
    tfds("dtd", "train+validation"),
    tfds("dtd", "test"),
    images=3760,
  )
