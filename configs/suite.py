r"""Students by transfers, in one table with paired differences.

Command: python -m kd_jax.main --config configs/suite.py \
  --config.workdirs="('runs/kdep_r18','runs/relabel_r18')" \
  --config.columns="('cifar100','dtd')"

Each transfer is a config of its own, with the source of its expected figure. A
student of another architecture keeps its own fields; of a transfer's
`student.overrides` it takes the normalisation of the input alone.

`:demo` needs no data. A teacher learns scenes of the digits 0-4 with labels.
Smaller students are pre-trained, by as many steps each: with these labels, or
on scenes of all digits without labels, by KDEP, logits distillation and
ScaleKD. Then they learn the digits 5-9 from few labels, or to segment them from
few masks, beside an untrained network and a linear classifier of raw pixels.
Every row has the rate that is best for it on held-out scenes.
Expected: the table of docs/transfer.md, in at most 15 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs.common import choose
from configs.common_scenes import (
  STUDENT,
  TEACHER,
  few_labels,
  few_masks,
  logits,
  scalekd,
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
DETECTORS = ("voc_r18_c4", "voc_mnv2_fpn", "coco_r18_c4", "coco_mnv2_fpn")


def get_config(variant: str = "") -> ConfigDict:
  """Of finished runs, or `:demo`; `:demo_smoke` in a few steps."""
  choose(variant, ("", "demo", "demo_smoke"))
  config = suite("Transfer")
  config.columns = ("cifar100", "dtd", "caltech256", "cub200")
  paths = {name: f"configs/transfer_{name}.py" for name in DATA_SETS}
  detect = [f"detect_{name}" for name in DETECTORS]
  paths |= {name: f"configs/{name}.py" for name in detect}
  config.transfers = ConfigDict({k: {"config": v} for k, v in paths.items()})
  if variant:
    demo(config, small=variant != "demo")
  config.lock()
  return config


def demo(config: ConfigDict, *, small: bool) -> None:
  """The embedded demonstration."""
  steps, length = (4, 256) if small else (600, 8000)
  seeds = 2 if small else 5
  runs = {
    "teacher": supervised(TEACHER, steps, length),
    "supervised": supervised(STUDENT, steps, length),
    "logits": logits(steps, length),
    "scalekd": scalekd(steps, length),
    "kdep": unlabelled(steps, length),
  }
  students = {
    "scratch": {"title": "from scratch"},
    "untrained": {"title": "untrained, frozen", "trains": "head"},
    "pixels": {"title": "raw pixels, linear", "pixels": True},
    "supervised": {"title": "supervised, labels of 0-4"},
    "logits": {"title": "logits of the teacher"},
    "scalekd": {"title": "ScaleKD"},
    "kdep": {"title": "KDEP"},
  }
  for name in [name for name in runs if name in students]:
    students[name]["init_from"] = name
  config.title = "Scenes: new digits from few labels and few masks"
  config.order, config.runs = tuple(runs), ConfigDict(runs)
  config.rows, config.students = tuple(students), ConfigDict(students)
  config.transfers = ConfigDict(
    {
      "labels5": few_labels(2 if small else 100, 5, seeds),
      "labels20": few_labels(2 if small else 100, 20, seeds),
      "masks200": few_masks(2 if small else 200, 200, seeds),
    }
  )
  config.columns = ("labels5", "labels20", "masks200")
  config.titles = ConfigDict(
    {
      "labels5": "5 labels per digit",
      "labels20": "20 labels per digit",
      "masks200": "200 masks",
    }
  )
  config.least = ConfigDict({} if small else {"teacher": 0.8})
