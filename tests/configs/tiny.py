"""A KDEP run of seconds: real digits, networks of a few channels.

The weights of the teacher are given by --config.teacher.weights.
"""

from ml_collections import ConfigDict

from configs.common import bank, base, preprocess

VARIANTS = ("", "ema", "labels", "fkd", "bank", "maps")


def get_config(variant: str = "") -> ConfigDict:
  """The plain run, with a moving average, with labels, on maps, or a bank."""
  config = base()
  config.steps = 12
  config.batch_size = 32
  config.data = digits("train[:200]")
  config.preprocess = preprocess(8, augment="shift", shift=1, crop_pct=1.0)
  config.student = network((4, 8, 8, 12), 0)
  config.teacher.update({"name": "resnet18", **network((8, 8, 16, 24), 0)})
  config.optim.update({"lr": 0.01, "schedule": "cosine"})
  config.fit.augment = False
  config.log_every = 1
  config.eval.update({"batch_size": 64, "limit": 64, "pictures": 0})
  config.checkpoint.every = 3
  if variant == "ema":
    config.ema_decay = 0.9
  if variant == "labels":
    config.method = ConfigDict({"name": "supervised"})
    config.teacher.update({"source": "none", "name": ""})
    config.losses.update({"feature": 0.0, "ce": 1.0})
    config.student.overrides.num_classes = 10
    config.eval.update({"every": 6, "evals": ("knn", "probe")})
    config.eval.update(
      {"train": digits("train[:200]"), "test": digits("test[:100]")}
    )
  if variant == "fkd":
    config.method = ConfigDict({"name": "fkd"})
    config.losses = ConfigDict({"soft": 1.0, "ce": 0.0})
    config.student.overrides.num_classes = 10
  if variant == "maps":
    # Stage 2 has 4 x 4 positions, of 8 channels each.
    taps = {"student": "stage2", "teacher": "stage2"}
    config.method = ConfigDict({"name": "kdep_dense", **taps})
    config.losses = ConfigDict({"summary": 1.0, "patches": 1.0})
  if variant == "bank":
    bank(config, shard=48)
  config.lock()
  return config


def network(channels: tuple[int, ...], num_classes: int) -> ConfigDict:
  """A ResNet-18 cut down to some channels."""
  overrides = {
    "layers": (1, 1, 1, 1),
    "channels": channels,
    "stem_width": 4,
    "stem_type": "cifar",
    "num_classes": num_classes,
    "input_size": (3, 8, 8),
  }
  return ConfigDict({"name": "resnet18", "overrides": overrides})


def digits(split: str) -> ConfigDict:
  """Some of scikit-learn's digits."""
  return ConfigDict({"name": "digits", "split": split})
