r"""Stages of a backbone that was trained for detection or segmentation.

Command: python -m kd_jax.main --config configs/stagewise_dense.py \
  --config.teacher.weights=BACKBONE.safetensors --config.data.dir=IMAGES
Variants: `:joint` trains all stages at once, `:smoke` and `:joint_smoke` take
  seconds. `:scenes` is everything in one command, last phase and comparison
  too, without any data: some 10 minutes on 2 CPU cores; `:scenes_smoke`.
Data: the images of the task, any folder of them; no labels are read.
Teacher: the tensors of the task-trained backbone alone, with timm's names
  (docs/stagewise.md shows how to cut them out of a detector), or a finished
  run of the task 'segment': WORKDIR/student.

Only the stages run here: the classifier's phase is off (losses.ce=0). The last
phase, the task's head on the frozen backbone, is a transfer to segmentation
with transfer.trains=head, started from this run; or it is in the task's own
code, which takes the student's backbone with timm's names.

Expected: nothing was measured on real data, and the paper's COCO figures were
not obtained. The recipe is ImageNet's (stagewise_r18) at 512 pixels, for 20,000
steps. That of the scenes is nobody's; mean IoU of the head on frozen stages
24.0, fine-tuned with them 29.3, on untrained features 16.0, from scratch 23.3
(docs/stagewise.md).
"""

from ml_collections import ConfigDict

from configs.common import choose, preprocess
from configs.common_scenes import (
  DOWNSTREAM,
  TEACHER,
  few_masks,
  unlabelled,
)
from configs.common_scenes import scenes as images
from configs.common_stagewise import VARIANTS, finish, stagewise
from configs.common_suite import suite

EPOCH = 1000  # steps; the data's own epoch is not known here


def get_config(variant: str = "") -> ConfigDict:
  """ResNet-50 -> ResNet-18, batch 64, SGD with rate .025; or the scenes."""
  choose(variant, (*VARIANTS, "scenes", "scenes_smoke"))
  if variant.startswith("scenes"):
    return scenes(small=variant.endswith("smoke"))
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


def scenes(*, small: bool) -> ConfigDict:
  """A teacher that segments, a student's stages, and then its head."""
  steps, length = (8, 128) if small else (800, 8000)
  tuning = 2 if small else 200
  config = suite("Scenes: the head on a stage-wise backbone")
  runs = {"teacher": teacher(steps, length), "stages": stages(steps, length)}
  config.order, config.runs = tuple(runs), ConfigDict(runs)
  config.least = ConfigDict({} if small else {"teacher": 0.3})
  config.students = ConfigDict(
    {
      "scratch": {"title": "from scratch, all learns"},
      "untrained": {"title": "untrained, head learns", "trains": "head"},
      "stages": {
        "title": "stage-wise, head learns",
        "init_from": "stages",
        "trains": "head",
      },
      "tuned": {"title": "stage-wise, all learns", "init_from": "stages"},
    }
  )
  config.rows = ("scratch", "untrained", "stages", "tuned")
  last = few_masks(tuning, 200, seeds=3 if small else 5)
  if small:
    last.transfer.rates = ()
  config.transfers = ConfigDict({"masks": last})
  config.columns = ("masks",)
  config.titles = ConfigDict({"masks": "200 masks"})
  config.lock()
  return config


def teacher(steps: int, length: int) -> ConfigDict:
  """Learns the task from the masks of all its scenes."""
  config = few_masks(steps, 0, 1)
  config.student.overrides = ConfigDict(TEACHER)
  config.data = images("train", DOWNSTREAM, length=length, seed=1)
  config.batch_size = 64
  config.transfer.rates = ()
  config.checkpoint.every = steps // 2
  return config


def stages(steps: int, length: int) -> ConfigDict:
  """A smaller student's stages, on the task's images without masks."""
  config = unlabelled(steps, length, DOWNSTREAM)
  recipe = stagewise(epoch=steps, epochs=1, head_epochs=0)
  config.method, config.losses = recipe.method, recipe.losses
  config.optim.update({"nesterov": True, "warmup": 0, "warmup_frac": 0.05})
  config.eval.every = steps // 8
  return config
