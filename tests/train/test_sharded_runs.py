"""Runs on tars and tables that are killed and go on, and of two processes."""

import os
import subprocess
import sys

import numpy as np
import pytest

import runs
import shard_files
from kd_jax.report import metrics

SOURCE = ("webdataset", "urls={}/data/tars")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  found = tmp_path_factory.mktemp("runs")
  shard_files.write(found / "data", 70, per_shard=9, per_group=8)
  return found


@pytest.fixture(scope="module")
def teacher(place):
  return f"teacher.weights={runs.save_teacher(place / 'teacher')}"


def fields(place, name, where):
  source = f"data.{where.format(place)}", "data.split=all"
  return f"data.name={name}", *source, "data.shuffle_blocks=4"


@pytest.mark.slow
def test_killed_and_resumed_is_as_one(place, teacher):
  given = teacher, *fields(place, *SOURCE)
  whole, killed = place / "whole", place / "killed"
  runs.here(whole, *given)
  runs.kill(lambda where: 6 in runs.checkpoints(where), killed, *given)
  assert 12 not in runs.checkpoints(killed)
  assert "continuing after step" in runs.here(killed, *given)
  states = runs.state(whole, 12), runs.state(killed, 12)
  assert states[0].keys() == states[1].keys() and len(states[0]) > 20
  for path, array in states[0].items():
    np.testing.assert_array_equal(array, states[1][path], err_msg=path)


@pytest.mark.slow
def test_two_processes_are_as_one(place, teacher):
  given = teacher, *fields(place, *SOURCE), "steps=6"
  together, alone = place / "together", place / "alone"
  done = subprocess.run(
    [
      runs.ROOT / "launch/local.sh",
      "2",
      *runs.arguments(together, *given)[1:],
    ],
    cwd=runs.ROOT,
    env={
      **os.environ,
      **runs.ENV,
      "PYTHON": sys.executable,
      "KD_JAX_DEVICES_PER_PROCESS": "1",
    },
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
  )
  assert done.returncode == 0, done.stderr
  runs.complete(alone, *given, XLA_FLAGS=runs.devices(2))
  key = "loss/feature"
  losses = [
    [line[key] for line in metrics.read(where) if key in line]
    for where in (together, alone)
  ]
  assert len(losses[0]) == 6
  np.testing.assert_allclose(*losses, rtol=1e-4)
