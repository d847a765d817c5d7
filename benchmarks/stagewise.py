"""Stage-wise distillation against others of the same cost, on real digits.

python -m benchmarks.stagewise [--seeds 3] [--steps 300]

A teacher learns digits 0-4 with labels;
students of other widths are pre-trained without labels on all digits: stage by
stage, all stages at once (joint), by KDEP; or with labels and no teacher. All
spend the same number of floating point operations: `--steps` are KDEP's, and
the others take as many as those pay for, by the cost analysis of their compiled
train steps. Then all are fine-tuned on 25 labelled images of digits 5-9
(10 draws of the images per pre-trained student). The table says
accuracy on the test images of digits 5-9, mean and standard deviation over
seeds of the pre-training (each the mean of its draws).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import _command_line
from benchmarks import _digits as recipes
from benchmarks._finetune import Finetune, finetune
from configs.common_stagewise import stagewise
from kd_jax.build.experiment import experiment
from kd_jax.report import tables
from kd_jax.report.run import throughput
from kd_jax.tasks import pretrain
from kd_jax.train import phases
from kd_jax.train.experiment import Experiment
from kd_jax.types import Batch

DRAWS = 10  # of the labelled images
HEADER = ("pre-training", "MFLOPs / image", "steps", "kNN", "fine-tuned")


def stages(steps: int, *, joint: bool) -> ConfigDict:
  """Stage-wise pre-training in place of KDEP."""
  config, own = recipes.kdep(steps), stagewise(epoch=1, epochs=1, head_epochs=0)
  for part in ("method", "losses"):
    config[part] = own[part]
  config.method.joint = joint
  config.optim.update({"nesterov": True, "warmup_frac": 0.05})
  config.fit.examples = 0
  return config


def contenders(steps: int) -> dict[str, ConfigDict]:
  """{name: config}, all of `steps` steps."""
  return {
    "stage-wise": stages(steps, joint=False),
    "joint": stages(steps, joint=True),
    "KDEP": recipes.kdep(steps),
    "labels, no teacher": recipes.supervised(recipes.STUDENT, steps),
  }


def cost(config: ConfigDict, where: Path) -> float:
  """Operations per image of a run, the mean over its steps."""
  parts = experiment(config, where)
  total = 0.0
  for stretch in parts.stretches:
    share = (stretch.stop - stretch.start) / config.steps
    total += share * _step_cost(config, parts, stretch)
  return total / config.batch_size


def _step_cost(
  config: ConfigDict, parts: Experiment, stretch: phases.Stretch
) -> float:
  """Operations of one train step of a phase, as compiled."""
  rows, size = config.batch_size, parts.inputs.views.image_size
  batch = Batch(
    image=np.zeros((rows, size, size, 3), np.uint8),
    label=np.zeros(rows, np.int32),
    mask=np.ones(rows, np.float32),
  )
  step, *given = throughput.ready(parts, stretch.phase, batch)
  return float(step.lower(*given).compile().cost_analysis()["flops"])


def with_steps(config: ConfigDict, steps: int) -> ConfigDict:
  """The same for another number of steps."""
  with config.unlocked():
    config.steps = steps
    config.eval.update({"every": max(steps // 12, 1), "evals": ("knn",)})
    config.checkpoint.every = steps
    config.log_every = max(steps // 20, 1)
  return config


def run(args: argparse.Namespace, where: Path) -> list[Sequence[Any]]:
  """Trains everything; rows of the table."""
  transfer = finetune(recipes.finetune(4 if args.smoke else 100))
  recipe = recipes.supervised(recipes.TEACHER, recipes.STEPS)
  if args.smoke:
    recipe.steps = 4
  teacher = pretrain.run(recipe, where / "teacher")
  assert teacher is not None
  draws = recipes.SEEDS[: 2 if args.smoke else DRAWS]
  scratch = [transfer.run(None, seed) for seed in draws]
  rows: list[Sequence[Any]] = [
    ("none (from scratch)", "-", "-", "-", percent(scratch))
  ]
  names = contenders(args.steps)
  costs = {}
  for name, fields in names.items():
    fields.teacher.weights = str(where / fields.teacher.weights)
    costs[name] = cost(fields, where / "cost")
  budget = args.steps * costs["KDEP"]
  for name, fields in names.items():
    steps = round(budget / costs[name])
    folders = [where / f"{name}-{seed}" for seed in range(args.seeds)]
    found = figures(with_steps(fields, steps), folders, transfer, draws)
    operations = f"{costs[name] / 1e6:.2f}"
    rows.append((name, operations, steps, *found))
  return rows


def figures(
  config: ConfigDict,
  folders: Sequence[Path],
  transfer: Finetune,
  draws: Sequence[int],
) -> tuple[str, str]:
  """Accuracy by kNN and fine-tuned, of one pre-training per folder.

  Args:
    config: of the pre-training; the seed is the folder's place.
    folders: one per seed.
    transfer: to a few labelled images.
    draws: seeds of those images.
  """
  found = [pretrained(config, *each) for each in enumerate(folders)]
  tuned = [
    np.mean([transfer.run(each.variables, seed) for seed in draws])
    for each in found
  ]
  knn = [each.metrics["eval/knn"] for each in found]
  return percent(knn), percent(tuned)


def pretrained(config: ConfigDict, seed: int, where: Path) -> pretrain.Result:
  """One pre-training."""
  config.seed = seed
  found = pretrain.run(config, where)
  assert found is not None
  return found


def percent(values: Sequence[float]) -> str:
  """Mean and standard deviation."""
  spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
  return f"{100 * np.mean(values):.1f} ± {100 * spread:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints one table."""
  args = _command_line.students(__doc__, recipes.STEPS).parse_args(arguments)
  with tempfile.TemporaryDirectory() as folder:
    rows = run(args, Path(folder))
  print(f"\n{tables.columns([HEADER, *([str(x) for x in r] for r in rows)])}")


if __name__ == "__main__":
  main()
