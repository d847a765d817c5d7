"""Two teachers, running and from banks, compiled as users do; a line of JSON.

python several_bits_case.py DIR
"""

import contextlib
import io
import json
import pathlib
import sys

import numpy as np

import runs
from kd_jax import main
from tests.configs import teachers as case

CONFIG = runs.ROOT / "tests" / "configs" / "teachers.py"
STEPS = 20
PLAIN = (
  f"steps={STEPS}",
  "batch_size=20",
  f"checkpoint.every={STEPS}",
  "eval.every=0",
)


def run(where, *fields, variant):
  said = io.StringIO()
  with contextlib.redirect_stderr(said):
    found = runs.arguments(where, *fields, variant=variant, config=CONFIG)
    status = main.main(found)
  assert status == 0, said.getvalue()


def run_all(root):
  """{variant: arrays that are not those of the running teachers}."""
  weights = {name: root / name for name in case.CHANNELS}
  for name, channels in case.CHANNELS.items():
    runs.save_teacher(weights[name], channels=channels)
  for name, at in weights.items():
    fields = (*PLAIN, f"teacher.weights={at}", "bank.passes=2")
    run(root / f"bank_{name}", *fields, variant=f"bank_{name}")
  banks = {name: root / f"bank_{name}" / "bank" for name in weights}
  mixed = {**weights, "a": banks["a"]}
  ways = {"": weights, "banks": banks, "mixed": mixed}
  for variant, places in ways.items():
    given = [f"teachers.{name}.weights={at}" for name, at in places.items()]
    run(root / f"run_{variant}", *PLAIN, *given, variant=variant)
  found = {v: runs.state(root / f"run_{v}", STEPS) for v in ways}
  want = found.pop("")
  assert all(set(ours) == set(want) for ours in found.values())
  apart = {
    variant: [k for k in want if not np.array_equal(ours[k], want[k])]
    for variant, ours in found.items()
  }
  return {"apart": apart, "arrays": len(want)}


if __name__ == "__main__":
  print(json.dumps(run_all(pathlib.Path(sys.argv[1]))))
