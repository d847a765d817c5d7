"""Digits 0-4 upstream, digits 5-9 downstream: small, fast, and nearly solved.

Raw pixels all but suffice here, so differences are small; benchmarks use it for
what costs too much on scenes.
"""

from ml_collections import ConfigDict

from configs.common import base, preprocess

STEPS = 300
SEEDS = range(15)  # draws of labelled images
UPSTREAM = (0, 1, 2, 3, 4)
DOWNSTREAM = (5, 6, 7, 8, 9)
DIGITS = 1437  # for training

TEACHER = {
  "layers": (1, 1, 1, 1),
  "channels": (32, 64, 96, 128),
  "stem_width": 32,
  "stem_type": "cifar",
}
STUDENT = {
  "layers": (1, 1, 1, 1),
  "channels": (12, 24, 36, 48),
  "stem_width": 12,
  "stem_type": "cifar",
}


def run(steps: int) -> ConfigDict:
  """What the three runs share."""
  config = base()
  config.steps = steps
  config.batch_size = 64
  config.data = digits("train", UPSTREAM)
  config.preprocess = views()
  config.optim.update({"lr": 0.1, "weight_decay": 5e-4, "schedule": "cosine"})
  config.eval.update(
    {
      "every": steps // 4 if steps == STEPS else 0,
      "evals": ("knn", "probe"),
      "batch_size": 128,
      "train": digits("train", DOWNSTREAM),
      "test": digits("test", DOWNSTREAM),
    }
  )
  config.log_every = max(steps // 20, 1)
  config.checkpoint.every = max(steps // 2, 1)
  return config


def supervised(overrides: dict, steps: int) -> ConfigDict:
  """Pre-training with labels."""
  config = run(steps)
  config.method = ConfigDict({"name": "supervised"})
  config.losses.update({"feature": 0.0, "ce": 1.0})
  config.teacher.update({"source": "none", "name": ""})
  config.student = student(overrides, num_classes=len(UPSTREAM))
  # A classifier of these digits says nothing about those of the evals.
  config.eval.judge = digits("test", UPSTREAM)
  return config


def kdep(steps: int) -> ConfigDict:
  """Pre-training without labels, from the first run's student."""
  config = run(steps)
  config.data = digits("train", ())
  config.data.labels = False
  config.student = student(STUDENT, num_classes=0)
  config.teacher.update({"name": "resnet18", "weights": "teacher/student"})
  config.losses.feature = 3.0  # the authors' weight
  config.fit.augment = False
  return config


def finetune(steps: int) -> ConfigDict:
  """Few labels of classes that pre-training has not seen."""
  return ConfigDict(
    {
      "student": student(STUDENT, num_classes=len(DOWNSTREAM)),
      "steps": steps,
      "batch_size": 25,
      "eval_batch_size": 180,
      "preprocess": views(),
      "optim": {"lr": 0.03, "weight_decay": 5e-4, "schedule": "cosine"},
      "labels": 25,
      "train": digits("train", DOWNSTREAM),
      "test": digits("test", DOWNSTREAM),
    }
  )


def views() -> ConfigDict:
  """Digits are not flipped, only moved."""
  return preprocess(
    16, augment="shift", shift=2, crop_pct=1.0, interpolation="bilinear"
  )


def student(overrides: dict, num_classes: int) -> ConfigDict:
  """A ResNet-18 cut down to digits."""
  fields = {**overrides, "num_classes": num_classes}
  return ConfigDict({"name": "resnet18", "overrides": fields})


def digits(split: str, classes: tuple[int, ...]) -> ConfigDict:
  """Some classes of scikit-learn's digits."""
  return ConfigDict({"name": "digits", "split": split, "classes": classes})
