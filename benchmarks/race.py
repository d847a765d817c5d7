"""All methods, one teacher, one student, the same price.

python -m benchmarks.race [--out runs/race] [--seeds 2] [--steps 200]

A teacher learns digits 0-4 with labels, once on scikit-learn's digits and once
on scenes (digits on photographs). Every method then pre-trains a smaller
student without labels on all digits, twice: for as many steps as KDEP, and for
as many as cost the same number of operations (counted in the traced steps;
methods within 3 % of KDEP's run once). What the students are worth on digits
5-9: kNN; on scikit-learn's digits fine-tuning on 25 labelled images (mean of 3
draws); on scenes a linear classifier of the frozen features of 100 labelled
scenes (mean of 10 draws), and one of pixels on the frozen stages. Differences
to KDEP are taken seed by seed; ± is the standard error over the seeds.

A third part, 'teachers', is a small race of what learns from two at once.

The folder keeps one file per run, and the same command goes on where it ended;
--only=digits and --only=scenes can run side by side. It ends with race.md,
which tells the processor time of all runs, and pictures/race.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import (
  _command_line,
  _race_cost,
  _race_figures,
  _race_many,
  _race_table,
)
from benchmarks import _racers as field
from kd_jax.tasks import pretrain

PLACES = (*field.COURSES, _race_many.NAME)
CLOSE = 0.03  # costs that count as equal


def run(args: argparse.Namespace, where: Path) -> None:
  """Whatever is not there yet, seed by seed."""
  for data in [args.only] if args.only else PLACES:
    folder = where / data
    for name, config in _teachers(data, args.smoke).items():
      assert pretrain.run(config, folder / name) is not None
    judge = _race_figures.judge(data, small=args.smoke)
    names = [n for n in racers(data) if not args.racers or n in args.racers]
    for seed in range(args.seeds):
      for name in names:
        _race(args.steps, folder, name, seed, judge)
        _race_table.write(where)


def racers(data: str) -> dict[str, field.Racer]:
  """Who takes part; the first is what the others are compared with."""
  return _race_many.racers() if data == _race_many.NAME else field.racers()


def _teachers(data: str, small: bool) -> dict[str, ConfigDict]:
  """{name: its pre-training}."""
  if data == _race_many.NAME:
    return _race_many.teachers(small)
  return {"teacher": field.COURSES[data].teacher(small)}


def _race(
  steps: int, folder: Path, name: str, seed: int, judge: _race_figures.Judge
) -> None:
  """Both runs of a method with a seed."""
  first = next(iter(racers(folder.name)))
  base, own = (_cost(each, steps, folder) for each in (first, name))
  ratio = base["operations"] / own["operations"]
  equal = steps if abs(ratio - 1) < CLOSE else max(round(steps * ratio), 1)
  for budget, count in (("steps", steps), ("operations", equal)):
    keep = folder / "figures" / f"{name}-{budget}-{seed}.json"
    if keep.exists():
      continue
    twin = keep.with_name(f"{name}-steps-{seed}.json")
    if count == steps and twin.exists():
      _keep(keep, {**json.loads(twin.read_text()), "seconds": 0.0})
      continue
    start = time.process_time()
    found = _figures(config_of(folder, name, count, seed), judge)
    seconds = time.process_time() - start
    _keep(keep, {"steps": count, "seconds": seconds, **found})
    print(f"{folder.name} {name} {budget} {seed}: {found}", flush=True)


def config_of(folder: Path, name: str, steps: int, seed: int) -> ConfigDict:
  """A run of a method after the teachers of `folder`."""
  if folder.name == _race_many.NAME:
    return _race_many.contest(name, steps, seed, folder)
  course = field.COURSES[folder.name]
  config = field.contest(field.racers()[name], course, steps, seed)
  config.teacher.weights = str(folder / "teacher" / "student")
  return config


def _cost(name: str, steps: int, folder: Path) -> dict[str, float]:
  """What a step costs, measured once."""
  keep = folder / "costs" / f"{name}.json"
  if not keep.exists():
    config = config_of(folder, name, steps, 0)
    with tempfile.TemporaryDirectory() as empty:
      found = _race_cost.of(config, Path(empty))
    _keep(keep, {**found, "images": config.batch_size})
  return json.loads(keep.read_text())


def _figures(
  config: ConfigDict, judge: _race_figures.Judge
) -> dict[str, float]:
  with tempfile.TemporaryDirectory() as folder:
    student = pretrain.run(config, folder)
    assert student is not None
    return judge(student)


def _keep(path: Path, values: dict[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(values))


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the race, or what is left of it."""
  parser = _command_line.students(__doc__, steps=200)
  parser.set_defaults(seeds=2)
  parser.add_argument("--out", default="runs/race")
  parser.add_argument("--only", choices=PLACES)
  everyone = {**field.racers(), **_race_many.racers()}
  parser.add_argument("--racers", nargs="*", choices=[*everyone])
  args = parser.parse_args(arguments)
  where = Path(args.out)
  where.mkdir(parents=True, exist_ok=True)
  jax.config.update("jax_compilation_cache_dir", str(where / "programs"))
  run(args, where)
  print(_race_table.write(where))


if __name__ == "__main__":
  main()
