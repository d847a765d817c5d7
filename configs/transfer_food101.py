r"""Food-101: fine-tuning by the usual protocol of transfer.

Command: python -m kd_jax.main --config configs/transfer_food101.py \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:vit` (ViT-S, 100 epochs of AdamW, EMA,
  mixup); `:smoke`, `:smoke_vit` and so on (seconds, made-up images).
Data: TFDS 'food101', 101 classes of 750 images in train and 250 in validation,
  as TFDS calls the official test images; TFDS downloads it (docs/data.md).

Protocol: Kornblith, Shlens and Le, Do Better ImageNet Models Transfer Better?,
  CVPR 2019 (arXiv:1805.08974): all weights, SGD with Nesterov's momentum .9, a
  cosine to 0, batch 256, 20,000 steps; 68 epochs of 75,750. The rate is chosen
  on 10 % of the training images, then the network is trained on all of them,
  three seeds. Of the paper's grid (7 rates from 1e-4 to .1, 8 weight decays) 4
  rates are tried with weight decay 1e-4; crops are of 224 pixels for every
  network.
Figure: top-1, as there for this set.

Expected: not found for KDEP, which does not use this set; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_classify import standard_classification
from configs.common_transfer import tfds


def get_config(variant: str = "") -> ConfigDict:
  """20,000 steps of SGD; see `standard_classification`."""
  return standard_classification(
    variant,
    tfds("food101", "train"),
    tfds("food101", "validation"),
    images=75_750,
    figure="top1",
  )
