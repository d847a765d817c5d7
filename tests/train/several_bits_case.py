"""Two teachers, running and from banks, compiled as users do; a line of JSON.

python several_bits_case.py DIR
"""

import contextlib
import io
import json
import pathlib
import sys

import jax
import numpy as np

import runs
from kd_jax import convert, main
from tests.configs import teachers as case

CONFIG = runs.ROOT / "tests" / "configs" / "teachers.py"
STEPS = 20
KERNEL = "['params']['student']['stage4']['block0']['conv1']['kernel']"
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
  """How far students of stored teachers are from one of running ones."""
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
    variant: max(float(np.abs(ours[k] - want[k]).max()) for k in want)
    for variant, ours in found.items()
  }
  return {
    "apart": apart,
    "arrays": len(want),
    "spread": float(np.ptp(want[KERNEL])),
    "steady": steady(weights["a"]),
  }


def steady(weights):
  """Whether a row's bits do not depend on its place in the batch.

  They do where programs take many rows at a time and the rest one by one.
  """
  model, variables = convert.load_pretrained("resnet18", weights)
  images = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
  features = jax.jit(lambda x: model.apply(variables, x)["feature"])
  want = np.asarray(features(images))
  return all(
    np.array_equal(np.roll(features(np.roll(images, k, 0)), -k, 0), want)
    for k in range(1, 20)
  )


if __name__ == "__main__":
  print(json.dumps(run_all(pathlib.Path(sys.argv[1]))))
