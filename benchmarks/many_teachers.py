"""Two teachers, one student: a head for each, or one joint target.

  python -m benchmarks.many_teachers

Two narrow networks learn scikit-learn's digits with labels, one the digits 0-4
and one 5-9. A student of another width learns from both without labels, and is
judged by kNN on all digits. A few minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs.common import base, preprocess, teacher
from kd_jax.tasks import pretrain

WIDTHS = {"low": (8, 16, 24, 48), "high": (8, 16, 24, 32)}
CLASSES = {"low": (0, 1, 2, 3, 4), "high": (5, 6, 7, 8, 9)}
STUDENT = (8, 8, 16, 16)
ALIGNS = {
  "scratch": (),
  "low alone, SVD": ("low", "svd"),
  "high alone, SVD": ("high", "svd"),
  "head each, no balance": ("heads", "linear"),
  "head each, one scalar": ("heads", "scalar"),
  "head each, channels": ("heads", "standardise"),
  "head each, whitening": ("heads", "whitening"),
  "head each, PHI-S": ("heads", "phi_s"),
  "joint SVD": ("joint", "joint_svd"),
}


def network(channels: tuple[int, ...], classes: int) -> dict:
  """A ResNet of one block per stage."""
  overrides = {
    "layers": (1, 1, 1, 1),
    "channels": channels,
    "stem_width": 8,
    "stem_type": "cifar",
    "num_classes": classes,
    "input_size": (3, 16, 16),
  }
  return {"name": "resnet18", "overrides": overrides}


def digits(split: str, **fields) -> dict:
  """scikit-learn's digits."""
  return {"name": "digits", "split": split, **fields}


def common(steps: int, seed: int) -> ConfigDict:
  """What all runs share."""
  config = base()
  config.steps, config.batch_size, config.seed = steps, 64, seed
  config.data = ConfigDict(digits("train"))
  config.preprocess = preprocess(16, augment="shift", shift=1, crop_pct=1.0)
  config.optim.update({"lr": 0.05, "schedule": "cosine"})
  config.log_every, config.checkpoint.every = steps, 0
  config.eval.update({"batch_size": 128, "pictures": 0, "evals": ("knn",)})
  config.eval.train = ConfigDict(digits("train"))
  config.eval.test = ConfigDict(digits("test"))
  return config


def taught(name: str, steps: int) -> ConfigDict:
  """A teacher of five digits."""
  config = common(steps, 0)
  config.student = ConfigDict(network(WIDTHS[name], 5))
  config.teacher.update({"source": "none", "name": ""})
  config.method = ConfigDict({"name": "supervised"})
  config.losses = ConfigDict({"ce": 1.0})
  config.data.classes = CLASSES[name]
  return config


def student(kind: tuple[str, ...], steps: int, seed: int, at: Path):
  """A student of one or both."""
  config = common(steps, seed)
  config.student = ConfigDict(network(STUDENT, 0))
  if not kind:
    config.steps, config.optim.lr, kind = 1, 0.0, ("low", "svd")
  which, align = kind
  plain = {"name": "kdep", "temperature": 1.0, "power": 1.0}
  if align == "svd":
    plain = {"name": "kdep"}
  config.method = ConfigDict({**plain, "align": {"name": align}})
  names = tuple(WIDTHS) if which in ("heads", "joint") else (which,)
  config.teachers = ConfigDict(
    {
      name: teacher(
        "resnet18",
        str(at / name / "student"),
        overrides=network(WIDTHS[name], 5)["overrides"],
      )
      for name in names
    }
  )
  terms = ["feature"] if which == "joint" else [f"{n}/feature" for n in names]
  config.losses = ConfigDict(dict.fromkeys(terms, 1.0))
  return config


def run(config: ConfigDict, where: Path) -> float:
  """What kNN makes of the features, as a share of all digits."""
  config.lock()
  with contextlib.redirect_stderr(io.StringIO()):
    result = pretrain.run(config, where)
  assert result is not None
  return float(result.metrics["eval/knn"])


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--steps", type=int, default=400)
  parser.add_argument("--seeds", type=int, default=3)
  wanted = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    at = Path(folder)
    for name in WIDTHS:
      found = run(taught(name, wanted.steps), at / name)
      print(f"teacher {name}: kNN of all digits {found:.2%}", flush=True)
    print("| target | kNN, all digits | standard error |\n|-|-|-|")
    for title, kind in ALIGNS.items():
      scores = [
        run(student(kind, wanted.steps, seed, at), at / f"{title}{seed}")
        for seed in range(wanted.seeds)
      ]
      error = np.std(scores, ddof=1) / len(scores) ** 0.5
      print(f"| {title} | {np.mean(scores):.2%} | {error:.2%} |", flush=True)


if __name__ == "__main__":
  main()
