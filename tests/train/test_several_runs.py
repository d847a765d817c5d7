"""Whole runs with several teachers: running, stored, killed, continued."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import runs
from kd_jax.report import metrics
from tests.configs import teachers as case

CONFIG = runs.ROOT / "tests" / "configs" / "teachers.py"
CASE = pathlib.Path(__file__).with_name("several_bits_case.py")
STEPS = 20
PLAIN = (f"steps={STEPS}", "batch_size=20", "checkpoint.every=5")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """{teacher: where its weights are}."""
  root = tmp_path_factory.mktemp("teachers")
  for name, channels in case.CHANNELS.items():
    runs.save_teacher(root / name, channels=channels)
  return {name: root / name for name in case.CHANNELS}


def given(places):
  return [f"teachers.{name}.weights={at}" for name, at in places.items()]


def assert_same(ours, theirs):
  mine, other = (runs.state(where, STEPS) for where in (ours, theirs))
  assert set(mine) == set(other) and len(mine) > 90
  for name, array in other.items():
    np.testing.assert_array_equal(mine[name], array, err_msg=name)


def test_stored_teachers_teach_what_running_ones_do(tmp_path):
  """Bit for bit as users compile, where the processor computes every row of a
  batch alike; else as far apart as the last bits of some rows take them. The
  tests hardly optimize their programs, and then a loss beside a network adds up
  otherwise."""
  env = {**os.environ, "PYTHONPATH": f"{runs.ROOT}:{runs.ROOT / 'tests'}"}
  del env["XLA_FLAGS"]
  done = subprocess.run(
    [sys.executable, str(CASE), str(tmp_path)],
    cwd=runs.ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["arrays"] > 90 and found["spread"] > 0.1
  bound = 0 if found["steady"] else 1e-4
  assert found["apart"].keys() == {"banks", "mixed"}
  assert max(found["apart"].values()) <= bound, found


def test_a_killed_run_ends_as_if_it_had_not_been(weights, tmp_path):
  fields = (*PLAIN, *given(weights), "balance.name=inverse")
  runs.here(tmp_path / "whole", *fields, config=CONFIG)
  killed = tmp_path / "killed"
  runs.kill(
    lambda where: len(runs.checkpoints(where)) > 1,
    killed,
    *fields,
    config=CONFIG,
  )
  assert "continuing after step" in runs.here(killed, *fields, config=CONFIG)
  assert_same(killed, tmp_path / "whole")
  found = [line.get("loss/a/feature") for line in metrics.read(killed)]
  losses = [loss for loss in found if loss is not None]
  assert losses[0] == pytest.approx(1, 1e-5) and losses[-1] < 1


def test_teachers_are_dropped_image_by_image(weights, tmp_path):
  fields = (*PLAIN, *given(weights), "balance.name=dropping")
  runs.here(tmp_path, *fields, config=CONFIG)
  lines = [line for line in metrics.read(tmp_path) if "loss/total" in line]
  assert lines[-1]["loss/total"] < lines[0]["loss/total"]
