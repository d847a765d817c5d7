"""Transfers of seconds: real digits, networks of a few channels."""

from ml_collections import ConfigDict

from configs.common import preprocess
from configs.common_detect import objects, tiny_detector
from configs.common_transfer import transfer
from tests.configs.tiny import digits

VARIANTS = ("classify", "segment", "detect")


def get_config(variant: str = "classify") -> ConfigDict:
  """One run on a draw of labels; fields make it a search, a probe and so on."""
  config = transfer(variant)
  overrides = {
    "layers": (1, 1, 1, 1),
    "channels": (4, 6, 8, 12),
    "stem_width": 4,
    "stem_type": "cifar",
  }
  config.student = ConfigDict({"name": "resnet18", "overrides": overrides})
  config.steps = 6
  config.batch_size = 16
  config.log_every = 2
  config.checkpoint.every = 2
  config.optim.update({"lr": 0.03, "weight_decay": 5e-4, "schedule": "poly"})
  config.eval.update({"batch_size": 32, "pictures": 2})
  config.transfer.update({"shots": 4, "holdout": 0.25})
  if variant == "classify":
    config.data = digits("train[:160]")
    config.test = digits("test[:70]")
    config.preprocess = preprocess(
      8, augment="shift", shift=1, crop_pct=1.0, interpolation="bilinear"
    )
  elif variant == "detect":
    detection(config)
  else:
    config.transfer.shots = 16
    config.data, config.test = scenes("train", 24), scenes("test", 18)
    config.preprocess = ConfigDict(
      {"image_size": 16, "augment": "none", "shift": 1, "hflip": 0.0}
    )
    config.head = ConfigDict({"name": "light", "channels": 8})
    config.aux = ConfigDict({"name": ""})
    config.losses.aux = 0.0
    config.eval.mirror = False
  config.lock()
  return config


def detection(config: ConfigDict) -> None:
  """Boxes and masks of one or two digits, with statistics re-estimated."""
  config.transfer.shots = 16
  more = {"size": 32, "digits": (1, 2), "min_size": 0.3, "max_size": 0.6}
  config.data = scenes("train", 24, **more)
  config.test = scenes("test", 18, **more)
  config.preprocess = objects(
    short=(32,),
    long=32,
    test_short=32,
    test_long=32,
    buckets=1,
    max_objects=2,
    divisor=8,
    masks=True,
    mask_size=14,
  )
  config.detector = ConfigDict(
    {
      "name": "c4",
      **tiny_detector("c4"),
      "sizes": (8, 14, 20),
      "norm": "precise",
      "masks": True,
    }
  )
  config.losses.mask = 1.0
  config.optim.lr = 0.02
  config.eval.update({"batch_size": 16, "precise_batches": 2})


def scenes(split: str, length: int, **more) -> ConfigDict:
  """Small photographs with a digit of two classes."""
  fields = {"split": split, "length": length, "size": 16}
  fields.update({"classes": (3, 8), "min_size": 0.6, "max_size": 0.9})
  return ConfigDict({"name": "scenes", **fields, **more})
