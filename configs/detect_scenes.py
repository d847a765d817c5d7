r"""Digits on photographs: Faster R-CNN in minutes on a CPU, without any data.

Command: python -m kd_jax.main --config configs/detect_scenes.py \
  --config.init_from=runs/scenes/kdep
Start: a student that was pre-trained on scenes without labels (above), for
  which `python -m kd_jax.main --config configs/detect_scenes.py:suite --workdir
  runs/scenes` trains one; or nothing: from scratch.
Variants: `:masks` (Mask R-CNN); `:fpn` (feature pyramid); `:suite`, from
  scratch and from pre-training in one table, 3 seeds; `:smoke`, `:smoke_masks`,
  `:smoke_fpn`, `:smoke_suite` (seconds).
Data: scenes of 48 pixels with one to three of the digits 5 to 9, which
  pre-training by a teacher of the digits 0 to 4 never saw labels of
  (kd_jax/data/sources/scenes.py).

Expected: the table of docs/detection.md, by `:suite`.
"""

from ml_collections import ConfigDict

from configs.common_detect import objects, tiny_detector
from configs.common_scenes import (
  DOWNSTREAM,
  STUDENT,
  TEACHER,
  scenes,
  supervised,
  unlabelled,
)
from configs.common_suite import suite
from configs.common_transfer import split, transfer

SIZE = 48  # pixels
IMAGES, FEW = 500, 100  # with boxes, to learn from


def get_config(variant: str = "") -> ConfigDict:
  """A detector of five digits."""
  tiny, kind = split(variant, ("", "masks", "fpn", "suite"))
  config = table(tiny) if kind == "suite" else digits(kind, tiny)
  config.lock()
  return config


def digits(
  kind: str, tiny: bool, seeds: int = 1, images: int = IMAGES, steps: int = 1500
) -> ConfigDict:
  """The detection of one student."""
  config = transfer("detect")
  config.student = ConfigDict({"name": "resnet18", "overrides": STUDENT})
  form = "fpn" if kind == "fpn" else "c4"
  config.detector = ConfigDict(
    {
      "name": form,
      **tiny_detector(form),
      "norm": "train",
      "masks": kind == "masks",
      "sizes": (8, 12, 16, 22, 30),
      "pooled": 6,
      "pre_nms": (256, 256),
      "post_nms": (64, 32),
      "rpn_batch": 64,
      "box_batch": 32,
    }
  )
  fields = {"digits": (1, 3), "min_size": 0.25, "max_size": 0.6}
  fields["size"] = SIZE
  length = 64 if tiny else images
  config.data = scenes("train", DOWNSTREAM, length=length, seed=3, **fields)
  length = 16 if tiny else 500
  config.test = scenes("test", DOWNSTREAM, length=length, seed=4, **fields)
  config.preprocess = objects(
    short=(SIZE,),
    long=SIZE,
    test_short=SIZE,
    test_long=SIZE,
    buckets=1,
    hflip=0.0,
    max_objects=3,
    divisor=8,
    masks=kind == "masks",
    mask_size=28,
  )
  if kind == "masks":
    config.losses.mask = 1.0
  config.steps, config.batch_size = (4, 8) if tiny else (steps, 32)
  config.optim.update({"lr": 0.05, "weight_decay": 5e-4, "schedule": "cosine"})
  config.optim.update({"warmup": config.steps // 15, "clip_norm": 10.0})
  config.transfer.seeds = tuple(range(seeds))
  config.eval.update({"batch_size": 16 if tiny else 100, "figure": "ap50"})
  config.log_every = max(config.steps // 10, 1)
  config.checkpoint.every = config.steps // 2
  return config


def table(tiny: bool) -> ConfigDict:
  """From scratch and from pre-training."""
  steps, length = (4, 256) if tiny else (600, 8000)
  runs = {
    "teacher": supervised(TEACHER, steps, length),
    "kdep": unlabelled(steps, length),
  }
  config = suite("Scenes: new digits with boxes")
  config.order, config.runs = tuple(runs), ConfigDict(runs)
  students = {
    "scratch": {"title": "from scratch"},
    "kdep": {"title": "KDEP, without labels", "init_from": "kdep"},
  }
  config.rows, config.students = tuple(students), ConfigDict(students)
  seeds = 2 if tiny else 3
  sizes = {"boxes": (IMAGES, 1500), "few": (FEW, 600)}
  config.transfers = ConfigDict(
    {name: digits("", tiny, seeds, *size) for name, size in sizes.items()}
  )
  config.columns = tuple(sizes)
  config.titles = ConfigDict(
    {name: f"{images} images with boxes" for name, (images, _) in sizes.items()}
  )
  config.least = ConfigDict({} if tiny else {"teacher": 0.8})
  return config
