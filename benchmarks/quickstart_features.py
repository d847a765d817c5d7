"""Whether the quickstart's task needs pre-training at all: linear classifiers.

  python -m kd_jax.main --config configs/quickstart.py
  python -m benchmarks.quickstart_features --workdir runs/quickstart

Multinomial logistic regression (kd_jax/evals/probe.py) on frozen features of
the very images that the quickstart fine-tunes on: 25 labelled digits 5-9,
others for every seed, judged on the same test images. Features are raw pixels,
what the teacher and the student of KDEP ended with, and the student's network
with random weights. Accuracy is mean and standard deviation over seeds; the
difference is to raw pixels, seed by seed, with the standard error of its mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import kd_jax
from configs import quickstart as recipes
from kd_jax.build import images
from kd_jax.data.sources import digits
from kd_jax.evals import probe
from kd_jax.evals.features import Features
from kd_jax.report import tables
from kd_jax.report.pictures import neighbours
from kd_jax.transfer import paired

LABELS = 25
HEADER = ("feature", "width", "accuracy", "paired difference")


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", type=int, default=20)
  args = parser.parse_args(arguments)
  print(tables.columns([HEADER, *rows(args.workdir, args.seeds)]))


def rows(workdir: Path, seeds: int) -> list[tuple[str, ...]]:
  """The table's lines.

  Args:
    workdir: of a finished quickstart.
    seeds: so many draws of labelled images.
  """
  found = []
  baseline: list[float] | None = None
  for name, embed in features(workdir).items():
    test = _read(embed, "test")
    accuracy = [
      probe.evaluate(
        _read(embed, f"train[{LABELS * seed}:{LABELS * (seed + 1)}]"), test
      )["probe"]
      for seed in range(seeds)
    ]
    baseline = baseline or accuracy
    spread = 100 * (paired.spread(accuracy) or 0.0)
    gain = paired.difference(accuracy, baseline)
    difference = f"{100 * gain.mean:+.1f} ± {100 * (gain.error or 0.0):.1f}"
    found.append(
      (
        name,
        str(test.feature.shape[1]),
        f"{100 * np.mean(accuracy):.1f} ± {spread:.1f} %",
        "-" if baseline is accuracy else difference,
      )
    )
  return found


def features(workdir: Path) -> dict[str, neighbours.Embed]:
  """{name: features of evaluation views}; raw pixels come first."""
  teacher = kd_jax.load_pretrained("resnet18", workdir / "teacher" / "student")
  student = kd_jax.load_pretrained("resnet18", workdir / "kdep" / "student")
  image = np.zeros((1, 16, 16, 3), np.float32)
  fresh = jax.jit(lambda key: student[0].init(key, image, train=False))
  return {
    "raw pixels": lambda image: image[..., 0].reshape(len(image), -1) / 255,
    "teacher": neighbours.of_student(*teacher, tap="feature"),
    "student of KDEP": neighbours.of_student(*student, tap="feature"),
    "student, untrained": neighbours.of_student(
      student[0], fresh(jax.random.key(0)), tap="feature"
    ),
  }


def _read(embed: neighbours.Embed, split: str) -> Features:
  source = digits.Source(split, classes=recipes.DOWNSTREAM)
  views = images.preprocess(recipes.views().to_dict())
  records = [source[index] for index in range(len(source))]
  pixels = np.stack([views.eval(record) for record in records])
  labels = np.array([record["label"] for record in records])
  return Features(embed(pixels), labels)


if __name__ == "__main__":
  main()
