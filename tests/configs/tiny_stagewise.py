"""A stage-wise run of seconds: real digits, networks of a few channels."""

from ml_collections import ConfigDict

from configs.common import base, preprocess
from tests.configs.tiny import digits, network

TERMS = ("stage1", "stage2", "stage4", "ce")


def get_config(variant: str = "") -> ConfigDict:
  """Three cuts and the classifier, three steps each, or `:joint`."""
  config = base()
  config.steps = 12
  config.batch_size = 32
  config.data = digits("train[:200]")
  config.preprocess = preprocess(8, augment="shift", shift=1, crop_pct=1.0)
  config.student = network((4, 8, 8, 12), 10)
  config.teacher.update({"name": "resnet18", **network((8, 8, 16, 24), 0)})
  config.method = ConfigDict(
    {
      "name": "stagewise",
      "normalise": "standard",
      "budget": "equal",
      "head_frac": 0.25,
      "joint": variant == "joint",
    }
  )
  config.losses = ConfigDict(dict.fromkeys(TERMS, 1.0))
  config.optim.update({"lr": 0.01, "schedule": "cosine"})
  config.optim.warmup_frac = 0.05
  config.fit.augment = False
  config.log_every = 1
  config.eval.update({"every": 2, "batch_size": 64, "limit": 64})
  config.checkpoint.update({"every": 2, "keep": 20})
  config.lock()
  return config
