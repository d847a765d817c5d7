r"""Pre-training without labels on a laptop CPU, from one command.

Command: python -m kd_jax.main --config configs/quickstart.py
Expected: the table of docs/quickstart.md, in about 3 minutes on 2 CPU cores.
Data: scikit-learn's digits and photographs, shipped with the package; scenes
are made of them on the fly (kd_jax/data/sources/scenes.py).

Digits 0-4 are the upstream task: a teacher learns them with labels, and is
checked on its own test scenes before it teaches. A smaller student of another
width is pre-trained, by as many steps each: with the teacher's labels, on what
the teacher's classifier says (logits), and by KDEP, which needs no labels and
so sees scenes of all digits.

Digits 5-9 are the downstream task: a few labelled scenes of each, others for
every seed but the same for every row, and test scenes with other digits and
photographs. Each row has the rate that is best for it on held-out scenes.

`:control` has one more row, by KDEP on scenes of 0-4 alone: the difference is
what the unlabelled images of new digits are worth.

`:bank` shows instead that the teacher need not run: it fills one bank with
float32 features and one with 8 bits per direction, and a student learns from
each. The first one ends with the very weights of KDEP beside the teacher.
"""

from ml_collections import ConfigDict

from configs.common import bank, choose
from configs.common_scenes import (
  QUICK_STUDENT,
  QUICK_TEACHER,
  UPSTREAM,
  few_labels,
  logits,
  supervised,
  unlabelled,
)
from configs.common_suite import suite

STEPS = 500
SCENES = 8000  # for pre-training
SHOTS = 20  # labelled scenes per new digit

TITLES = {
  "scratch": "none (from scratch)",
  "supervised": "supervised, labels of 0-4",
  "logits": "logits of the teacher, all digits",
  "kdep04": "KDEP, scenes of 0-4 alone",
  "kdep": "KDEP, all digits",
  "stored": "KDEP from a bank, float32",
  "stored8": "KDEP from a bank, int8",
}


def get_config(variant: str = "") -> ConfigDict:
  """The full story, `:control`, `:bank`, or two of them in a few steps."""
  choose(variant, ("", "smoke", "control", "bank", "bank_smoke"))
  small, banks = variant.endswith("smoke"), variant.startswith("bank")
  steps, length = (4, 256) if small else (STEPS, SCENES)
  runs = {"teacher": supervised(QUICK_TEACHER, steps, length)}
  if banks:
    runs["kdep"] = kdep(steps, length)
    runs["kdep"].fit.augment = True  # a bank has no other views
    runs |= stored(steps, length)
  else:
    runs["supervised"] = supervised(QUICK_STUDENT, steps, length)
    runs["logits"] = logits(steps, length, QUICK_STUDENT)
    if variant == "control":
      runs["kdep04"] = kdep(steps, length, UPSTREAM)
    runs["kdep"] = kdep(steps, length)
  for name, each in runs.items():
    each.optim.lr = 0.05  # at 0.1 some seeds learn little
    each.input.threads = 2  # scenes come from memory: more would only queue
    each.eval.limit = 64 if small else each.eval.limit
    each.eval.pictures = each.eval.pictures if name == "kdep" else 0
  students = {
    name: {"title": title, "init_from": name}
    for name, title in TITLES.items()
    if name in runs
  }
  config = suite("What pre-training is worth on new digits")
  config.order, config.runs = tuple(runs), ConfigDict(runs)
  config.at_once = 2
  config.least = ConfigDict({} if small else {"teacher": 0.8})
  config.rows = ("scratch", *students)
  students["scratch"] = {"title": TITLES["scratch"]}
  config.students = ConfigDict(students)
  config.columns = ("labels",)
  config.titles = ConfigDict({"labels": f"{SHOTS} labels per digit"})
  config.transfers = ConfigDict({"labels": downstream(small)})
  config.lock()
  return config


def kdep(steps: int, images: int, classes: tuple[int, ...] = ()) -> ConfigDict:
  """Pre-training of this file's student without labels."""
  return unlabelled(steps, images, classes, QUICK_STUDENT)


def downstream(small: bool) -> ConfigDict:
  """Few labels of the new digits."""
  steps, seeds = (2, 2) if small else (100, 4)
  config = few_labels(steps, SHOTS, seeds, QUICK_STUDENT)
  config.transfer.search_seeds = 1
  config.input.threads = 2
  if small:
    config.test.length = 100
    config.data.length = 400
  return config


def stored(steps: int, images: int) -> dict[str, ConfigDict]:
  """Two banks of every crop that so many steps see, and KDEP from each."""
  codecs = {
    "": {"name": "raw"},
    "8": {"name": "aligned", "width": 64, "dtype": "int8"},
  }
  runs = {}
  for name, codec in codecs.items():
    writer, student = kdep(steps, images), kdep(steps, images)
    epochs = -(-steps * writer.batch_size // images)
    bank(writer, codec=codec, passes=epochs, shard=512)
    student.teacher.update({"source": "bank", "name": ""})
    student.teacher.weights = f"bank{name}/bank"
    for config in (writer, student):
      config.fit.augment = True
    runs |= {f"bank{name}": writer, f"stored{name}": student}
  return runs
