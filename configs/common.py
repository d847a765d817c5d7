"""Fields that every training config has, with neutral defaults."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
  """An unlocked config; recipes fill it in and lock it."""
  config = ConfigDict()
  config.task = "pretrain"
  config.seed = 0
  config.steps = 1000  # updates
  config.batch_size = 256  # global
  config.accum_steps = 1  # microbatches per update
  config.dtype = "float32"  # of activations; parameters stay float32
  config.ema_decay = 0.0  # 0: no moving average
  config.fsdp = False  # shard the train state instead of copying it
  config.init_from = ""  # weights only: a file, a folder or a hub name
  config.dry_run = False  # print the summary and end

  # Arguments of kd_jax.create_model go into `overrides`.
  config.student = ConfigDict({"name": "resnet18", "overrides": {}})
  config.teacher = ConfigDict(
    {"source": "online", "name": "resnet50", "weights": "", "overrides": {}}
  )
  # Every part below is a file (`name`) and the fields of its dataclass.
  config.method = ConfigDict(
    {
      "name": "kdep",
      "align": {"name": "svd"},
      "temperature": 0.1,
      "power": 3.0,
      "kl_temperature": 4.0,
    }
  )
  # Weight of every loss term; one with weight 0 is not computed.
  config.losses = ConfigDict(
    {"feature": 1.0, "kl": 0.0, "ce": 0.0, "angle": 0.0, "rkd": 0.0, "fsp": 0.0}
  )
  config.optim = ConfigDict(
    {
      "name": "sgd",
      "lr": 0.1,
      "momentum": 0.9,
      "b2": 0.999,
      "nesterov": False,
      "weight_decay": 0.0,
      "decay_all": True,
      "schedule": "constant",
      "decay_every": 1,
      "gamma": 0.1,
      "warmup": 0,
      "clip_norm": 0.0,
    }
  )
  config.data = ConfigDict({"name": "digits", "split": "train"})
  config.preprocess = preprocess(224)
  # The teacher's mean and principal directions.
  config.fit = ConfigDict(
    {
      "artifact": "",  # '': artifact.npz in the workdir
      "augment": True,  # on training views, as the authors' script does
      "examples": 0,  # 0: one pass over the data
    }
  )
  config.eval = ConfigDict(
    {
      "every": 0,  # steps; 0: only at the end
      "evals": (),  # files of kd_jax/evals
      "tap": "pooled",
      "batch_size": 256,
      "limit": 0,  # images of each set; 0: all
      "train": {"name": ""},  # '': the training data
      "test": {"name": ""},
    }
  )
  config.log_every = 50
  config.checkpoint = ConfigDict({"every": 1000, "keep": 2})
  return config


def preprocess(image_size: int, **changes) -> ConfigDict:
  """Fields of kd_jax.data.preprocess.Preprocess."""
  fields = {
    "image_size": image_size,
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "augment": "crop",
    "scale": (0.08, 1.0),
    "ratio": (3 / 4, 4 / 3),
    "hflip": 0.5,
    "color_jitter": (0.0, 0.0, 0.0),
    "lighting": 0.0,
    "shift": 0,
  }
  return ConfigDict({**fields, **changes})
