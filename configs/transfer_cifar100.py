r"""CIFAR-100: fine-tuning of a pre-trained student (KDEP, CVPR 2022).

Command: python -m kd_jax.main --config configs/transfer_cifar100.py \
  --config.init_from=runs/kdep_r18
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:mnv2` (MobileNetV2); `:paper`, `:paper_mnv2` (the authors' choice on
  the test images); `:vit` (ViT-S, AdamW, EMA, mixup; no protocol of theirs);
  `:smoke`, `:smoke_paper` and so on (seconds, made-up images).
Data: TFDS 'cifar100', 50,000 images of 32 pixels, 10,000 for test; TFDS
  downloads it (docs/data.md).

Protocol: crops and evaluation at 224 pixels as for the other sets. 150 epochs
  of 50,000 / 64 = 781.25 steps: 117,187; the rate, 1e-3, falls to a tenth after
  39,063 and 78,126. Mean and deviation are those of CIFAR-100. By default the
  rate is one of three and chosen on 10 % of the training images, and the last
  weights count; `:paper` takes 1e-3, evaluates on the test images every 3906
  steps (5 epochs) and counts the best. Two seeds.

Expected (top-1): 82.89, ResNet-18 from KDEP. Not from the paper's text, which
  was not reachable, but from a leaderboard page (wizwand.com); that it means
  100 % of ImageNet, MS-R50 as teacher and `:paper` is our inference. Mean of
  the four sets: 78.40 (figure 1 of the paper). MobileNetV2, ViT: not found.
"""

from ml_collections import ConfigDict

from configs.common_classify import paper_classification
from configs.common_transfer import tfds

CIFAR = {
  "mean": (0.5071, 0.4867, 0.4408),
  "std": (0.2675, 0.2565, 0.2761),
}


def get_config(variant: str = "") -> ConfigDict:
  """150 epochs of SGD; see `paper_classification`."""
  return paper_classification(
    variant,
    tfds("cifar100", "train"),
    tfds("cifar100", "test"),
    images=50_000,
    overrides=CIFAR,
  )
