r"""KDEP on real handwritten digits, on a laptop CPU, from one command.

Command: python -m kd_jax.main --config configs/quickstart.py
Expected: the table of the README, in less than 4 minutes on 2 CPU cores.
Data: scikit-learn's digits (1797 real 8x8 images), shipped with the package.

Digits 0-4 are the upstream task of the teacher and of supervised pre-training;
KDEP needs no labels, so it sees all training images. Digits 5-9 are the
downstream task: 5 labelled images of each, others for every seed but the same
for every row of the table, and a test set that no training reads. Teacher and
student differ in width (128 against 48 channels), so the SVD has to align.

It shows that everything works together. It cannot show what pre-training is
worth: raw pixels nearly solve the task (benchmarks/quickstart_features.py), and
differences of the rows are of the order of their standard errors.

`:bank` shows instead that the teacher need not run: it fills one bank with
float32 features and one with 8 bits per direction, and a student learns from
each. The first one ends with the very weights of KDEP beside the teacher.
"""

from ml_collections import ConfigDict

from configs.common import bank, base, choose, preprocess

STEPS = 300
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


TITLES = {
  "scratch": ("none (from scratch)", "no"),
  "kdep": ("KDEP from the teacher", "no"),
  "supervised": ("supervised", "yes"),
  "stored": ("KDEP from a bank, float32", "no"),
  "stored8": ("KDEP from a bank, int8", "no"),
}


def get_config(variant: str = "") -> ConfigDict:
  """The full story, `:bank`, or the same in a few steps."""
  choose(variant, ("", "smoke", "bank", "bank_smoke"))
  smoke = variant.endswith("smoke")
  steps = 6 if smoke else STEPS
  runs = {"teacher": supervised(TEACHER, steps), "kdep": kdep(steps)}
  if variant.startswith("bank"):
    runs["kdep"].fit.augment = True  # a bank has no other views
    runs |= stored(steps, 128 if smoke else DIGITS)
    for each in runs.values() if smoke else ():
      each.data.split = "train[:128]"
      each.eval.update({"evals": (), "limit": 64})
  else:
    runs["supervised"] = supervised(STUDENT, steps)
  config = ConfigDict()
  config.task = "quickstart"
  config.seeds = tuple(range(2 if smoke else 15))
  config.order = tuple(runs)
  config.runs = ConfigDict(runs)
  config.titles = ConfigDict(TITLES)
  config.finetune = finetune(100 if not smoke else 4)
  config.lock()
  return config


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


def stored(steps: int, images: int) -> dict[str, ConfigDict]:
  """Two banks of every crop that so many steps see, and KDEP from each."""
  codecs = {
    "": {"name": "raw"},
    "8": {"name": "aligned", "width": 48, "dtype": "int8"},
  }
  runs = {}
  for name, codec in codecs.items():
    writer, student = kdep(steps), kdep(steps)
    epochs = -(-steps * writer.batch_size // images)
    bank(writer, codec=codec, passes=epochs, shard=512)
    student.teacher.update({"source": "bank", "name": ""})
    student.teacher.weights = f"bank{name}/bank"
    for config in (writer, student):
      config.fit.augment = True
    runs |= {f"bank{name}": writer, f"stored{name}": student}
  return runs


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
