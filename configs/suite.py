r"""Students by transfers, in one table with paired differences.

Command: python -m kd_jax.main --config configs/suite.py \
  --config.workdirs="('runs/kdep_r18','runs/relabel_r18')" \
  --config.columns="('cifar100','dtd')"

`:demo` needs no data: KDEP, logits distillation and ScaleKD at equal steps, on
scenes without labels, then few labels and few masks of digits that the teacher
has not learned. At most 15 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs.common import choose
from configs.common_scenes import (
  STUDENT,
  TEACHER,
  few_labels,
  few_masks,
  logits,
  supervised,
  unlabelled,
)
from configs.common_suite import suite

DATA_SETS = (
  "cifar100",
  "dtd",
  "caltech256",
  "cub200",
  "flowers",
  "pets",
  "food101",
  "cars",
  "voc2012",
  "cityscapes",
  "ade20k",
)


def get_config(variant: str = "") -> ConfigDict:
  """Of finished runs, or `:demo`; `:demo_smoke` in a few steps."""
  choose(variant, ("", "demo", "demo_smoke"))
  config = suite("Transfer")
  config.columns = ("cifar100", "dtd", "caltech256", "cub200")
  paths = {name: f"configs/transfer_{name}.py" for name in DATA_SETS}
  config.transfers = ConfigDict({k: {"config": v} for k, v in paths.items()})
  if variant:
    demo(config, small=variant != "demo")
  config.lock()
  return config


def demo(config: ConfigDict, *, small: bool) -> None:
  """The embedded demonstration."""
  steps, length = (4, 256) if small else (600, 8000)
  tuning, seeds = (2, 2) if small else (150, 5)
  runs = {
    "teacher": supervised(TEACHER, steps, length),
    "supervised": supervised(STUDENT, steps, length),
    "logits": logits(steps, length),
    "kdep": unlabelled(steps, length),
  }
  students = {
    "scratch": {"title": "from scratch"},
    "untrained": {"title": "untrained, frozen", "trains": "head"},
    "pixels": {"title": "raw pixels, linear", "pixels": True},
    "supervised": {"title": "supervised, labels of 0-4"},
    "logits": {"title": "logits of the teacher"},
    "kdep": {"title": "KDEP"},
  }
  for name in runs:
    if name in students:
      students[name]["init_from"] = name
  config.title = "Scenes: new digits from few labels"
  config.order, config.runs = tuple(runs), ConfigDict(runs)
  config.rows, config.students = tuple(students), ConfigDict(students)
  config.transfers = ConfigDict(
    {
      "labels5": few_labels(tuning, 5, seeds),
      "labels20": few_labels(tuning, 20, seeds),
      "masks50": few_masks(tuning, 50, seeds),
    }
  )
  config.columns = ("labels5", "labels20", "masks50")
  config.titles = ConfigDict(
    {
      "labels5": "5 labels per digit",
      "labels20": "20 labels per digit",
      "masks50": "50 masks",
    }
  )
  config.least = ConfigDict({} if small else {"teacher": 0.6})
