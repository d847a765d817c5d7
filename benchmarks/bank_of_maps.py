"""A bank of maps: bytes, what is lost, and what its students are worth.

  python -m benchmarks.bank_of_maps

A teacher learns digits 0-4 on scenes with labels. Its last map
(3 x 3 positions of 128 channels) is stored of every crop in several ways; a
student learns it by KDEP on maps from each, and beside the running teacher, and
is judged by kNN on scenes of all digits. A few minutes on one CPU core.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from benchmarks import _command_line
from configs import common_scenes
from configs.common import bank
from kd_jax.tasks import pretrain, write_bank

WAYS = {
  "float32, all": (0, "float32"),
  "int8, all": (0, "int8"),
  "int8, 64": (64, "int8"),
  "int8, 32": (32, "int8"),
  "int8, 16": (16, "int8"),
}
_BYTES = re.compile(r" (\d+) bytes each")
_LOST = re.compile(r"variance ([\d.]+%) does not")


def config_of(width: int, steps: int, images: int, seed: int) -> ConfigDict:
  """KDEP on the last map, with a head to so many directions."""
  config = common_scenes.unlabelled(steps, images)
  config.seed = seed
  config.method = ConfigDict(
    {"name": "kdep_dense", "head": "linear", "width": width}
  )
  config.losses = ConfigDict({"patches": 3.0})
  config.optim.update({"name": "adamw", "lr": 3e-3, "weight_decay": 0.05})
  config.optim.decay_all = False
  config.fit.augment = True  # as a bank's views are
  config.log_every, config.checkpoint.every = steps, 0
  config.eval.update({"evals": ("knn",), "pictures": 0, "limit": 500})
  judged = {"labels": True, "length": images // 2}
  config.eval.train = common_scenes.scenes("train", seed=3, **judged)
  config.eval.test = common_scenes.scenes("test", seed=4, **judged)
  return config


def said(task, config: ConfigDict, where: Path):
  """(what a task returns, what it says on the way)."""
  heard = io.StringIO()
  config.lock()
  with contextlib.redirect_stderr(heard):
    result = task.run(config, where)
  return result, heard.getvalue()


def stored(at: Path, way: tuple[int, str], args) -> tuple[str, str, str]:
  """Writes a bank; (its place, bytes of a crop, share that is lost)."""
  kept, dtype = way
  config = config_of(16, args.steps, args.images, 0)
  codec = {"name": "maps", "directions": {"stage4": kept}, "dtype": dtype}
  passes = -(-args.steps * config.batch_size // args.images)
  bank(config, codec=codec, passes=passes, shard=512)
  config.teacher.weights = str(at / "teacher" / "student")
  where = at / f"bank_{kept}_{dtype}"
  place, text = said(write_bank, config, where)
  size, lost = _BYTES.search(text), _LOST.search(text)
  assert size is not None and lost is not None, text
  return str(place), size[1], lost[1]


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table."""
  numbers = {"steps": 400, "images": 4000, "seeds": 3, "teacher_steps": 800}
  args = _command_line.parser(__doc__, **numbers).parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    at = Path(folder)
    teacher = common_scenes.supervised(
      common_scenes.TEACHER, args.teacher_steps, 2 * args.images
    )
    teacher.eval.pictures = 0
    said(pretrain, teacher, at / "teacher")
    print(
      "| the map comes from | bytes per crop | not brought back | kNN, all "
      "digits | standard error |\n|-|-|-|-|-|"
    )
    online = {"source": "online", "weights": str(at / "teacher" / "student")}
    report("the running teacher", at, online, args)
    for title, way in WAYS.items():
      place, *figures = stored(at, way, args)
      fields = {"source": "bank", "name": "", "weights": place}
      report(title, at, fields, args, *figures)


def report(
  title: str, at: Path, teacher: dict, args, size: str = "–", lost: str = "–"
) -> None:
  """Trains students and prints a row."""
  scores = []
  for seed in range(args.seeds):
    config = config_of(16, args.steps, args.images, seed)
    config.teacher.update(teacher)
    found, _ = said(pretrain, config, at / f"{title}{seed}")
    scores.append(float(found.metrics["eval/knn"]))
  error = np.std(scores, ddof=1) / len(scores) ** 0.5
  print(
    f"| {title} | {size} | {lost} | {np.mean(scores):.1%} | {error:.1%} |",
    flush=True,
  )


if __name__ == "__main__":
  main()
