"""Scenes: real digits on real photographs, and what is tried on them.

Upstream, digits 0-4: a teacher learns them with labels. Downstream, digits 5-9:
few labels, or few masks. Photographs and digits of training, validation and
test scenes are apart (kd_jax/data/sources/scenes.py).
"""

from ml_collections import ConfigDict

from configs.common import base, preprocess
from configs.common_transfer import transfer

SIZE = 24  # pixels
UPSTREAM = (0, 1, 2, 3, 4)
DOWNSTREAM = (5, 6, 7, 8, 9)
TEACHER = {
  "layers": (1, 1, 1, 1),
  "channels": (8, 32, 64, 128),
  "stem_width": 8,
  "stem_type": "cifar",
}
STUDENT = {
  "layers": (1, 1, 1, 1),
  "channels": (8, 16, 32, 64),
  "stem_width": 8,
  "stem_type": "cifar",
}
# The pair of the quickstart: stem and pooling take a scene to 6 x 6, so that a
# step takes half the time of the two above.
QUICK_TEACHER = {
  "layers": (1, 1, 1, 1),
  "channels": (32, 64, 128, 128),
  "stem_width": 16,
  "stem_type": "deep",
}
QUICK_STUDENT = {
  "layers": (1, 1, 1, 1),
  "channels": (16, 32, 64, 64),
  "stem_width": 8,
  "stem_type": "deep",
}


def scenes(split: str, classes: tuple[int, ...] = (), **more) -> ConfigDict:
  """Scenes of some digits."""
  fields = {"name": "scenes", "split": split, "size": SIZE, "classes": classes}
  return ConfigDict({**fields, **more})


def student(overrides: dict, num_classes: int = 0) -> ConfigDict:
  """A ResNet-18 cut down to scenes."""
  fields = {**overrides, "num_classes": num_classes}
  return ConfigDict({"name": "resnet18", "overrides": fields})


def run(steps: int) -> ConfigDict:
  """What all pre-training runs share."""
  config = base()
  config.steps = steps
  config.batch_size = 64
  config.preprocess = views()
  config.optim.update({"lr": 0.1, "weight_decay": 5e-4, "schedule": "cosine"})
  config.optim.warmup = steps // 20
  config.log_every = max(steps // 20, 1)
  config.checkpoint.every = max(steps // 2, 1)
  config.eval.update({"batch_size": 256, "limit": 1000})
  return config


def views() -> ConfigDict:
  """Scenes vary by themselves."""
  return preprocess(
    SIZE, augment="none", crop_pct=1.0, interpolation="bilinear"
  )


def supervised(overrides: dict, steps: int, length: int) -> ConfigDict:
  """Pre-training with the labels of the upstream digits."""
  config = run(steps)
  config.method = ConfigDict({"name": "supervised"})
  config.losses.update({"feature": 0.0, "ce": 1.0})
  config.teacher.update({"source": "none", "name": ""})
  config.student = student(overrides, len(UPSTREAM))
  if overrides == TEACHER:
    config.optim.lr = 0.05
  config.data = scenes("train", UPSTREAM, length=length, seed=1)
  config.eval.judge = scenes("validation", UPSTREAM, length=1000, seed=1)
  return config


def unlabelled(
  steps: int,
  length: int,
  classes: tuple[int, ...] = (),
  overrides: dict = STUDENT,
) -> ConfigDict:
  """Pre-training without labels, by KDEP from the first run's student."""
  config = run(steps)
  config.data = scenes("train", classes, length=length, seed=2, labels=False)
  config.eval.judge = scenes("validation", length=500, seed=2, labels=False)
  config.student = student(overrides)
  config.teacher.update({"name": "resnet18", "weights": "teacher/student"})
  config.losses.feature = 3.0  # the authors' weight
  config.fit.augment = False
  config.fit.examples = min(length, 4000)
  return config


def logits(steps: int, length: int, overrides: dict = STUDENT) -> ConfigDict:
  """Pre-training without labels, by what the teacher's classifier says."""
  config = unlabelled(steps, length)
  config.student = student(overrides, len(UPSTREAM))
  config.losses.update({"feature": 0.0, "kl": 1.0})
  return config


def scalekd(steps: int, length: int) -> ConfigDict:
  """Pre-training without labels, by ScaleKD: maps, and the teacher's tail."""
  config = unlabelled(steps, length)
  config.method = ConfigDict(
    {
      "name": "scalekd",
      "student": ("stage3", "stage4"),
      "target": "stage4",
      "resume": "stage4",
      "heads": (4, 4),
      "sharpness": 5.0,
    }
  )
  weights = {"proxy": 0.08, "final": 0.08, "proxy_alt": 0.06}
  config.losses = ConfigDict({**weights, "final_alt": 0.06})
  return config


def few_labels(
  steps: int, shots: int, seeds: int, overrides: dict = STUDENT
) -> ConfigDict:
  """Fine-tuning on a few labelled scenes of each new digit."""
  config = downstream("classify", steps, seeds)
  config.student.overrides = ConfigDict(overrides)
  config.preprocess = views()
  config.transfer.update({"shots": shots, "holdout": 0.5})
  config.batch_size = 25
  return config


def few_masks(steps: int, shots: int, seeds: int) -> ConfigDict:
  """Segmentation of the new digits from a few scenes with masks."""
  config = downstream("segment", steps, seeds)
  config.preprocess = ConfigDict(
    {"image_size": SIZE, "augment": "none", "shift": 2, "hflip": 0.0}
  )
  # With SGD a head hardly leaves the background, which is most of a scene.
  config.optim.update({"name": "adamw", "lr": 0.01, "weight_decay": 0.05})
  config.optim.warmup = steps // 10
  config.transfer.update({"rates": (0.003, 0.01, 0.03), "search_seeds": 1})
  fields = {"channels": 16, "branch_channels": 16, "num_groups": 4}
  config.head = ConfigDict({"name": "fpn", **fields})
  config.aux = ConfigDict({"name": ""})
  config.eval.mirror = False
  config.transfer.update({"shots": shots, "holdout": 0.5})
  config.batch_size = 25
  return config


def downstream(task: str, steps: int, seeds: int) -> ConfigDict:
  """What both transfers share."""
  config = transfer(task)
  config.student = ConfigDict({"name": "resnet18", "overrides": STUDENT})
  config.data = scenes("train", DOWNSTREAM, length=2000, seed=3)
  config.test = scenes("test", DOWNSTREAM, length=1000, seed=4)
  config.steps = steps
  config.optim.update({"weight_decay": 5e-4, "schedule": "cosine", "lr": 0.03})
  config.transfer.update({"rates": (0.01, 0.03, 0.1), "search_seeds": 2})
  config.transfer.at_once = 2
  config.transfer.seeds = tuple(range(seeds))
  config.eval.update({"batch_size": 250, "pictures": 0})
  config.log_every = steps
  config.checkpoint.every = 0
  return config
