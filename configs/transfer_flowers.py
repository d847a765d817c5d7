r"""Oxford Flowers-102: fine-tuning by the usual protocol of transfer.

Command: python -m kd_jax.main --config configs/transfer_flowers.py \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:vit` (ViT-S, 100 epochs of AdamW, EMA,
  mixup); `:smoke`, `:smoke_vit` and so on (seconds, made-up images).
Data: TFDS 'oxford_flowers102', 102 classes: train and validation (1020 images
  each) against test (6149); TFDS downloads it (docs/data.md).

Protocol: Kornblith, Shlens and Le, Do Better ImageNet Models Transfer Better?,
  CVPR 2019 (arXiv:1805.08974): all weights, SGD with Nesterov's momentum .9, a
  cosine to 0, batch 256, 20,000 steps; 2510 epochs of 2040. The rate is chosen
  on 10 % of the training images, then the network is trained on all of them,
  three seeds. Of the paper's grid (7 rates from 1e-4 to .1, 8 weight decays) 4
  rates are tried with weight decay 1e-4; crops are of 224 pixels for every
  network.
Figure: mean accuracy per class, as there for this set; top-1 stands beside it.

Expected: not found for KDEP, which does not use this set; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_classify import standard_classification
from configs.common_transfer import tfds


def get_config(variant: str = "") -> ConfigDict:
  """20,000 steps of SGD; see `standard_classification`."""
  return standard_classification(
    variant,
    tfds("oxford_flowers102", "train+validation"),
    tfds("oxford_flowers102", "test"),
    images=2040,
    figure="mean_per_class",
  )
