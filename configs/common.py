"""What training configs share; all fields are in kd_jax/door/fields.py."""

from ml_collections import ConfigDict

from kd_jax.door.fields import (
  STAGES,
  STAGEWISE,
  base,
  evaluation,
  kdep,
  preprocess,
  sgd,
  teacher,
)

__all__ = [
  "STAGES",
  "STAGEWISE",
  "base",
  "evaluation",
  "kdep",
  "preprocess",
  "sgd",
  "teacher",
]


def bank(config: ConfigDict, **changes) -> None:
  """Turns the config of a training into one that writes the bank for it."""
  config.task = "write_bank"
  config.bank = ConfigDict(
    {
      "place": "",  # directory, gs:// or s3://; '': WORKDIR/bank
      "passes": 1,  # epochs to store; more can be added later
      "shard": 8192,  # records per file
      "codec": {"name": "raw"},  # a file of kd_jax/codecs and its fields
      "price_per_hour": 0.0,  # of one process's machine, for the estimate
      "verify": False,  # read everything back instead of writing
      **changes,
    }
  )


# KDEP's budgets: epochs over 128 images per class, or over all of ImageNet.
BUDGETS = {
  "": (128, 90),
  "10pct_180": (128, 180),
  "10pct_900": (128, 900),
  "100pct_9": (0, 9),
  "100pct_18": (0, 18),
  "100pct_90": (0, 90),
}


def kdep_imagenet(variant: str, student: str, lr: float) -> ConfigDict:
  """KDEP on ImageNet from a timm ResNet-50, by the authors' recipe.

  Source: see `kd_jax.door.fields.kdep`.
  """
  choose(variant, (*BUDGETS, "smoke"))
  per_class, epochs = BUDGETS.get(variant, BUDGETS[""])
  images, batch_size = 1000 * per_class or 1_281_167, 512
  config = kdep(epochs * images // batch_size, batch_size, lr)
  config.student.name = student
  config.teacher.weights = "timm/resnet50.a1_in1k"
  config.data = imagenet("train", per_class)
  config.eval.update({"every": 2500, "limit": 10_000})
  # Read if evals=('knn',), which needs ImageNet's labels.
  config.eval.update(
    {"train": imagenet("train", 50), "test": imagenet("validation")}
  )
  config.checkpoint.every = 500
  if variant == "smoke":
    smoke(config)
  config.lock()
  return config


def imagenet(split: str, per_class: int = 0) -> ConfigDict:
  """ImageNet-1k as TensorFlow Datasets prepares it; see docs/data.md."""
  return ConfigDict(
    {
      "name": "tfds",
      "dataset": "imagenet2012",
      "split": split,
      "per_class": per_class,
    }
  )


def smoke(config: ConfigDict) -> None:
  """The same code path in seconds: tiny synthetic images, untrained teacher."""
  config.steps = 4
  config.batch_size = 8
  config.log_every = 1
  config.optim.decay_every = 2
  config.checkpoint.every = 2
  config.teacher.update({"source": "random", "weights": ""})
  config.teacher.overrides = ConfigDict(
    {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 8}
  )
  images = {"name": "synthetic", "size": 40, "num_classes": 4}
  config.data = ConfigDict({**images, "length": 96})
  config.preprocess.image_size = 32
  config.eval.update({"every": 0, "batch_size": 16, "evals": ("knn",)})
  config.eval.train = ConfigDict({**images, "length": 48})
  config.eval.test = ConfigDict({**images, "length": 24, "seed": 1})


def choose(variant: str, allowed: tuple[str, ...]) -> None:
  """Refuses a variant that a config does not have."""
  if variant not in allowed:
    raise ValueError(
      f"this config has no variant {variant!r}; it has {allowed}"
    )


def fkd_imagenet(variant: str, student: str, optimizer: str) -> ConfigDict:
  """FKD on ImageNet from a bank, four crops per image, by the authors' code.

  Source: github.com/szq0214/FKD, train_FKD (optimizer 'sgd') and train_ViT
  ('adamw'): batch 1024, 300 epochs, the last 4 (3) and for AdamW the first 5
  with one crop per image; the rate changes once per pass over the images.
  """
  choose(variant, ("", "smoke"))
  epoch = 1_281_167 // 1024  # steps
  last = {"sgd": 4, "adamw": 3}[optimizer]
  first = {"sgd": 0, "adamw": 5}[optimizer]
  config = base()
  config.batch_size = 1024
  config.steps = 300 * epoch
  config.student.name = student
  config.teacher.update({"source": "bank", "name": ""})
  config.teacher.weights = "runs/bank_fkd/bank"
  config.method = ConfigDict(
    {
      "name": "fkd",
      "temperature": 1.0,
      "teacher_temperature": 1.0,
      "single_first": first / 300,
      "single_last": last / 300,
    }
  )
  config.losses = ConfigDict({"soft": 1.0, "ce": 0.0})
  config.optim.update(_FKD_RATES[optimizer](epoch))
  config.data = imagenet("train")
  config.preprocess = preprocess(
    224,
    num_crops=4,
    scale=(0.08, 0.936),
    train_interpolation="bilinear",
    interpolation="bilinear",
    crop_pct=0.875,
  )
  config.eval.update({"every": 10 * epoch, "evals": ("top1",)})
  config.eval.update({"tap": "logits", "test": imagenet("validation")})
  config.eval.train = imagenet("train", 1)  # top1 does not read it
  config.checkpoint.every = epoch
  if variant == "smoke":
    fkd_smoke(config)
  config.lock()
  return config


# Epoch e of the last three of AdamW's recipe has the rate of e + 1.
_FKD_RATES = {
  "sgd": lambda epoch: {
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup_lr": 0.0,
    "final_lr": 0.0,
    "stairs": ((0, 4 * epoch, 0), (296 * epoch, epoch, 296 * epoch)),
  },
  "adamw": lambda epoch: {
    "name": "adamw",
    "lr": 2e-3,
    "weight_decay": 0.05,
    "decay_all": False,  # timm's rule
    "schedule": "whole_cosine",
    "warmup": 5 * epoch,
    "warmup_lr": 1e-5,
    "final_lr": 1e-5,
    "stairs": (
      (0, epoch, 0),
      (5 * epoch, 4 * epoch, 5 * epoch),
      (297 * epoch, epoch, 298 * epoch),
    ),
  },
}


def fkd_smoke(config: ConfigDict) -> None:
  """`smoke`, with 16 classes, an epoch per step and one crop at the end."""
  smoke(config)
  config.teacher.source = "bank"
  config.student.overrides = ConfigDict({"num_classes": 16})
  if config.student.name.startswith("resnet"):
    tiny = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 8}
    config.student.overrides.update(tiny)
  config.data.num_classes = 16
  config.eval.test.num_classes = 16
  config.method.update({"single_first": 0.0, "single_last": 0.25})
  config.optim.update({"warmup": 1, "stairs": ((0, 1, 0),)})
  config.eval.evals = ("top1",)


def bank_of_fkd(config: ConfigDict, variant: str, **changes) -> None:
  """Turns the config of a student of FKD into one that writes its bank.

  EfficientNet-L2, Noisy Student, 475 pixels: 88.14 % on ImageNet.
  """
  bank(config, **changes)
  config.preprocess.train_interpolation = "bicubic"
  config.batch_size = 128
  config.preprocess.image_size = 475
  config.teacher.update({"source": "online", "name": "tf_efficientnet_l2"})
  config.teacher.weights = "timm/tf_efficientnet_l2.ns_jft_in1k_475"
  if variant == "smoke":
    config.bank.shard = 32
    config.batch_size = 8
    config.preprocess.image_size = 64
    config.teacher.update({"source": "random", "name": "resnet50"})
    config.teacher.update({"weights": "", "overrides": {"num_classes": 16}})
