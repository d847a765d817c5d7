r"""Stages of a backbone that was trained for detection or segmentation.

Command: python -m kd_jax.main --config configs/stagewise_dense.py \
  --config.teacher.weights=BACKBONE.safetensors --config.data.dir=IMAGES
Variants: `:joint` trains all stages at once, `:smoke` and `:joint_smoke` take
  seconds.
Data: the images of the task, any folder of them; no labels are read.
Teacher: the tensors of the task-trained backbone alone, with timm's names
  (docs/stagewise.md shows how to cut them out of a detector).

The student's backbone, exported with timm's names, goes into the task's own
code, where neck and head learn from labels with the backbone frozen. Only the
stages run here: the classifier's phase is off (losses.ce=0).

Expected: nothing was measured, and the paper's COCO figures were not obtained.
The recipe is ImageNet's (stagewise_r18) at 512 pixels, for 20,000 steps.
"""

from ml_collections import ConfigDict

from configs.common import preprocess
from configs.common_stagewise import finish, stagewise

EPOCH = 1000  # steps; the data's own epoch is not known here


def get_config(variant: str = "") -> ConfigDict:
  """ResNet-50 -> ResNet-18, batch 64, SGD with rate .025."""
  config = stagewise(epoch=EPOCH, epochs=20, head_epochs=0)
  config.batch_size = 64
  config.optim.update({"lr": 0.025, "weight_decay": 1e-4})
  config.student.overrides.num_classes = 0
  config.teacher.overrides.num_classes = 0
  config.data = ConfigDict({"name": "folder", "dir": "", "labels": False})
  # Objects keep their size, roughly: crops are of at least half the image.
  config.preprocess = preprocess(
    512, scale=(0.5, 1.0), train_interpolation="bilinear"
  )
  config.eval.update({"limit": 2000, "batch_size": 64})
  # 512 pixels make 16,384 rows of an image at stage 1.
  config.fit.examples = 10_000
  return finish(config, variant)
