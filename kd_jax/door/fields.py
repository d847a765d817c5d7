"""Fields that every training config has, with neutral defaults.

`configs/` and the one command (`kd_jax.door.recipe`) begin with these.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

STAGES = ("stage1", "stage2", "stage3", "stage4")

STAGEWISE = {
  "name": "stagewise",
  "adapter": "auto",
  "size": "pool",
  "normalise": "auto",
  "reduction": "mean",
  "last": "auto",
  "budget": "flops",
  "hand_over": "best",
  "head_frac": 0.1,
  "clip": 1.0,
  "joint": False,
}
"""Fields of stage-wise distillation; docs/stagewise.md explains them."""


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
  config.batch_norm_group = 0  # images that share statistics; 0: microbatch
  config.fsdp = False  # shard the train state instead of copying it
  config.mesh = ConfigDict({"model": 1})  # devices that share teacher layers
  config.init_from = ""  # weights only: a file, a folder or a hub name
  config.dry_run = False  # print the summary and end
  # A dry run compiles for these chips, which nobody needs to have: 'v5e:16x16',
  # 'v5e-256', 'v5p-8'; '': for the devices that are here.
  config.topology = ""
  config.price_per_chip_hour = 0.0  # for the estimate of what the run costs

  # Arguments of kd_jax.create_model go into `overrides`.
  config.student = ConfigDict({"name": "resnet18", "overrides": {}})
  config.teacher = ConfigDict(
    {
      "source": "online",
      "name": "resnet50",
      "weights": "",
      "param_dtype": "float32",  # of its kernels; or 'bfloat16'
      "fsdp": False,  # shard its weights instead of copying them
      "overrides": {},
    }
  )
  config.update(_learning())
  config.update(_images())
  config.eval = evaluation()
  config.log_every = 50
  config.trackers = ()  # of "wandb" and "mlflow"; docs/tracking.md
  config.checkpoint = ConfigDict({"every": 1000, "keep": 2})
  return config


def _learning() -> ConfigDict:
  """What is learnt, and how."""
  config = ConfigDict()
  # Several: {name: fields of `teacher`, and 'preprocess', 'method', 'weight'};
  # `teacher` is then not read. docs/teachers.md
  config.teachers = ConfigDict()
  config.balance = ConfigDict({"name": "fixed"})  # a file of methods/balance
  # Every part is a file (`name`) and the fields of its dataclass.
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
  config.optim = sgd()
  # Mixing pairs of images in the step; the teacher sees them too.
  config.mix = ConfigDict(
    {
      "mixup": 0.0,  # alpha of the Beta distribution; 0: none
      "cutmix": 0.0,
      "prob": 1.0,
      "switch": 0.5,  # probability of CutMix where both are possible
      "smoothing": 0.0,  # of labels
    }
  )
  return config


def _images() -> ConfigDict:
  """What the images are, and how they are read."""
  config = ConfigDict()
  config.data = ConfigDict({"name": "digits", "split": "train"})
  config.preprocess = preprocess(224)
  config.input = ConfigDict(
    {
      "workers": 0,  # processes; 0: threads, cheaper up to 9000 images/s
      "threads": 8,  # per process
      "prefetch": 8,  # batches
      "keep_gib": 0.0,  # decoded images that stay in memory, for small sets
    }
  )
  # The teacher's mean and principal directions.
  config.fit = ConfigDict(
    {
      "artifact": "",  # '': artifact.npz in the workdir
      "augment": True,  # on training views, as the authors' script does
      "examples": 0,  # 0: all images
      "passes": 1,  # over them, in other training views
    }
  )
  return config


def evaluation() -> ConfigDict:
  """What is measured on the way; read by kd_jax.build.evaluation."""
  return ConfigDict(
    {
      "every": 0,  # steps; 0: only at the end
      "evals": (),  # files of kd_jax/evals
      "tap": "pooled",
      "batch_size": 256,
      "limit": 0,  # images of each set; 0: all
      "train": {"name": ""},  # read by evals only; '': the training data
      "test": {"name": ""},
      "judge": {"name": ""},  # chooses weights; '': the training data
      "pictures": 6,  # training views and queries in the report; 0: none
    }
  )


def sgd() -> ConfigDict:
  """Fields of kd_jax.train.optim.Optim."""
  return ConfigDict(
    {
      "name": "sgd",
      "lr": 0.1,
      "momentum": 0.9,
      "b2": 0.999,
      "nesterov": False,
      "weight_decay": 0.0,
      "decay_all": True,  # False: neither vectors nor what timm exempts
      "schedule": "constant",
      "decay_every": 1,
      "milestones": (),  # steps of the schedule 'milestones'
      "gamma": 0.1,
      "warmup": 0,
      "clip_norm": 0.0,
    }
  )


def preprocess(image_size: int, **changes: Any) -> ConfigDict:
  """Fields of kd_jax.data.preprocess.Preprocess."""
  fields = {
    "image_size": image_size,
    "interpolation": "",  # '': what the teacher's checkpoint asks for
    "crop_pct": 0.0,  # 0: likewise
    "crop_mode": "",  # '': likewise; 'center', or timm's 'squash'
    "train_interpolation": "area",  # fast; 'bilinear', 'bicubic': PIL's
    "dct_scaling": False,  # decode large JPEGs no larger than crops need
    "augment": "crop",
    "num_crops": 1,  # views of every decoded image
    "scale": (0.08, 1.0),
    "ratio": (3 / 4, 4 / 3),
    "hflip": 0.5,
    "rand_ops": 0,  # RandAugment
    "rand_magnitude": 9.0,
    "color_jitter": (0.0, 0.0, 0.0),
    "lighting": 0.0,
    "erase_prob": 0.0,
    "erase_mode": "pixel",
    "shift": 0,
    "canvas": 0,  # > 0: crop and resize on the device
  }
  return ConfigDict({**fields, **changes})


def kdep(steps: int, batch_size: int, lr: float) -> ConfigDict:
  """`base` with the recipe of KDEP's authors for any images and students.

  Source: github.com/CVMI-Lab/KDEP, scripts of MS-R50 -> R18 and -> MNV2: SGD,
  momentum .9, weight decay 5e-4, batch 512, rate times .1 after each third of
  the epochs; random resized crop, flip, colour jitter .1, lighting .05; 3 x
  MSE with T = .1, n = 3.

  Args:
    steps: updates.
    batch_size: global.
    lr: the first rate.
  """
  config = base()
  config.steps, config.batch_size = steps, batch_size
  config.student.update({"name": "resnet18", "overrides": {"num_classes": 0}})
  config.losses.feature = 3.0
  config.optim.update({"lr": lr, "weight_decay": 5e-4, "schedule": "step"})
  config.optim.decay_every = -(-steps // 3)
  config.preprocess = preprocess(
    224,
    color_jitter=(0.1, 0.1, 0.1),
    lighting=0.05,
    train_interpolation="bilinear",
  )
  return config


def teacher(name: str, weights: str = "", **changes: Any) -> ConfigDict:
  """One of `config.teachers`; see kd_jax.build.teachers.Entry."""
  fields = {
    "source": "online",
    "name": name,
    "weights": weights,
    "param_dtype": "float32",
    "fsdp": False,
    "overrides": {},
    "preprocess": {},  # fields of `preprocess` in which its view differs
    "method": {},  # fields of `method` that differ
    "weight": 1.0,  # factor of its terms in `losses`
  }
  return ConfigDict({**fields, **changes})
