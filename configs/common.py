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
  config.optim = sgd()
  config.data = ConfigDict({"name": "digits", "split": "train"})
  config.preprocess = preprocess(224)
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
  config.input = ConfigDict(
    {
      "workers": 0,  # processes; 0: threads, cheaper up to 9000 images/s
      "threads": 8,  # per process
      "prefetch": 8,  # batches
    }
  )
  # The teacher's mean and principal directions.
  config.fit = ConfigDict(
    {
      "artifact": "",  # '': artifact.npz in the workdir
      "augment": True,  # on training views, as the authors' script does
      "examples": 0,  # 0: one pass over the data
    }
  )
  config.eval = evaluation()
  config.log_every = 50
  config.trackers = ()  # of "wandb" and "mlflow"; docs/tracking.md
  config.checkpoint = ConfigDict({"every": 1000, "keep": 2})
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
      "gamma": 0.1,
      "warmup": 0,
      "clip_norm": 0.0,
    }
  )


def preprocess(image_size: int, **changes) -> ConfigDict:
  """Fields of kd_jax.data.preprocess.Preprocess."""
  fields = {
    "image_size": image_size,
    "interpolation": "",  # '': what the teacher's checkpoint asks for
    "crop_pct": 0.0,  # 0: likewise
    "crop_mode": "",  # '': likewise; 'center', or timm's 'squash'
    "train_interpolation": "area",  # fast; 'bilinear', 'bicubic': PIL's
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

  Source: github.com/CVMI-Lab/KDEP, scripts of MS-R50 -> R18 and -> MNV2: SGD,
  momentum .9, weight decay 5e-4, batch 512, rate times .1 after each third of
  the epochs; random resized crop, flip, colour jitter .1, lighting .05; 3 x
  MSE with T = .1, n = 3.
  """
  choose(variant, (*BUDGETS, "smoke"))
  per_class, epochs = BUDGETS.get(variant, BUDGETS[""])
  images = 1000 * per_class or 1_281_167
  config = base()
  config.batch_size = 512
  config.steps = epochs * images // config.batch_size
  config.student.update({"name": student, "overrides": {"num_classes": 0}})
  config.teacher.weights = "timm/resnet50.a1_in1k"
  config.losses.feature = 3.0
  config.optim.update({"lr": lr, "weight_decay": 5e-4, "schedule": "step"})
  config.optim.decay_every = -(-config.steps // 3)
  config.data = imagenet("train", per_class)
  config.preprocess = preprocess(
    224,
    color_jitter=(0.1, 0.1, 0.1),
    lighting=0.05,
    train_interpolation="bilinear",
  )
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
