r"""Your own labelled images: fine-tuning of a pre-trained student.

Command: python -m kd_jax.main --config configs/transfer_folder.py \
  --config.data.dir=DIR/train --config.test.dir=DIR/test \
  --config.init_from=runs/kdep_r18 --config.steps=5000
Start: a finished run (above), its student/ or any timm file or folder, a hub
  name (timm/resnet18.a1_in1k), or nothing: from scratch.
Variants: `:split`, one folder, of which a random fifth is for test
  (--config.data.dir=DIR --config.test.dir=DIR); `:mnv2`, `:vit` as in
  transfer_pets; `:smoke` and so on (seconds, made-up images).
Data: one folder per class, the same in both; or a CSV file of labels each,
  --config.data.csv=FILE --config.test.csv=FILE (docs/data.md).

Protocol: 5000 steps of SGD with Nesterov's momentum, batch 64, a cosine to 0;
  the rate is one of four, chosen on 10 % of the training images; three seeds.
  Few images (below some thousands): --config.steps=1000. Few labels of many:
  --config.transfer.shots=5. Linear probe, kNN: docs/transfer.md.

Expected: depends on your images; nothing was measured.
"""

from ml_collections import ConfigDict

from configs.common_classify import standard_classification
from configs.common_transfer import folder

SHARE = 80.0  # percent of one folder that `:split` trains on


def get_config(variant: str = "") -> ConfigDict:
  """Two folders, or one that is split at random."""
  train, test = folder("", exif_rotation=True), folder("", exif_rotation=True)
  if variant == "split":
    train.percent = test.percent = SHARE
    test.rest = True
  return standard_classification(
    variant,
    train,
    test,
    images=3200,  # of which 5000 steps are 100 epochs
    steps=5000,
    batch_size=64,
    variants=("", "split", "mnv2", "vit"),
  )
