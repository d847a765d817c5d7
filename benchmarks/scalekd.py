"""ScaleKD against KDEP, logits and no teacher, on real digits.

python -m benchmarks.scalekd [--seeds 3] [--steps 300]

A small ViT learns digits 0-4 with labels; a small ResNet is pre-trained without
labels on all digits, for the same number of steps by every method, with the
same optimizer. Then it is fine-tuned on 25 labelled images of
digits 5-9 (10 draws of the images per pre-trained student). The table says
accuracy on the test images of digits 5-9, mean and standard deviation over
seeds of the pre-training (each the mean of its draws), and what a step costs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks import _command_line
from benchmarks import _digits as recipes
from benchmarks._finetune import finetune
from benchmarks.stagewise import cost, figures, percent, with_steps
from kd_jax.report import tables
from kd_jax.tasks import pretrain

DRAWS = 10  # of the labelled images
HEADER = ("pre-training", "MFLOPs / image", "kNN", "fine-tuned")
TEACHER = {
  "img_size": 16,
  "patch_size": 4,
  "embed_dim": 96,
  "depth": 6,
  "num_heads": 4,
  "class_token": False,
  "global_pool": "avg",
}
# The authors' weights and factor for most pairs; the last two blocks as tail.
WEIGHTS = {"proxy": 0.08, "final": 0.08, "proxy_alt": 0.06, "final_alt": 0.06}
SCALEKD = {
  "name": "scalekd",
  "student": ("stage3", "stage4"),
  "target": "stage4",
  "resume": "block04",
  "heads": (4, 4),
  "sharpness": 5.0,
}


def teacher(steps: int) -> ConfigDict:
  """Supervised pre-training of a ViT on digits 0-4."""
  config = recipes.supervised({}, steps)
  fields = {**TEACHER, "num_classes": len(recipes.UPSTREAM)}
  config.student = ConfigDict(
    {"name": "vit_tiny_patch16_224", "overrides": fields}
  )
  config.optim.update({"name": "adamw", "lr": 1e-3, "weight_decay": 0.05})
  config.optim.update({"decay_all": False, "warmup": max(steps // 20, 1)})
  return config


def student(steps: int, method: dict[str, Any], **weights: float) -> ConfigDict:
  """Pre-training without labels by some method, with these loss weights."""
  config = recipes.kdep(steps)
  config.method = ConfigDict(method)
  config.losses = ConfigDict(weights)
  config.teacher.name = "vit_tiny_patch16_224"
  config.teacher.overrides = ConfigDict(TEACHER)
  if any(term.rpartition("/")[2] in ("kl", "kd") for term in weights):
    config.student.overrides.num_classes = len(recipes.UPSTREAM)
  return config


def contenders(steps: int) -> dict[str, ConfigDict]:
  """{name: config}, all of `steps` steps."""
  kdep = recipes.kdep(steps).method.to_dict()
  parts = {"scalekd": SCALEKD, "kdep": kdep}
  both = {f"scalekd/{term}": weight for term, weight in WEIGHTS.items()}
  return {
    "logits (Hinton)": student(steps, kdep, kl=1.0),
    "KDEP": student(steps, kdep, feature=3.0),
    "ScaleKD": student(steps, SCALEKD, **WEIGHTS),
    "ScaleKD + logits": student(steps, SCALEKD, **WEIGHTS, kd=0.5),
    "ScaleKD + KDEP": student(
      steps, {"name": "multi", "parts": parts}, **both, **{"kdep/feature": 3.0}
    ),
  }


def run(args: argparse.Namespace, where: Path) -> list[Sequence[Any]]:
  """Trains everything; rows of the table."""
  transfer = finetune(recipes.finetune(4 if args.smoke else 100))
  taught = pretrain.run(teacher(args.steps), where / "teacher")
  assert taught is not None
  draws = recipes.SEEDS[: 2 if args.smoke else DRAWS]
  scratch = [transfer.run(None, seed) for seed in draws]
  rows: list[Sequence[Any]] = [
    ("none (from scratch)", "-", "-", percent(scratch))
  ]
  for name, fields in contenders(args.steps).items():
    fields.teacher.weights = str(where / fields.teacher.weights)
    folder = where / name.replace(" ", "")
    operations = cost(fields, folder / "cost")
    fields = with_steps(fields, args.steps)
    folders = [folder / str(seed) for seed in range(args.seeds)]
    found = figures(fields, folders, transfer, draws)
    rows.append((name, f"{operations / 1e6:.2f}", *found))
  return rows


def main(argv: Sequence[str] | None = None) -> None:
  """Prints one table."""
  args = _command_line.students(__doc__, recipes.STEPS).parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    rows = run(args, Path(folder))
  print(tables.columns([HEADER, *rows]))


if __name__ == "__main__":
  main()
