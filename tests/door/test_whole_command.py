"""The command as people type it, in a process of its own."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from door_case import photographs

import kd_jax
import runs

pytestmark = pytest.mark.slow
STUDENT = "resnet10t"


def start(folder, *argv):
  return subprocess.Popen(
    [sys.executable, "-m", "kd_jax", *argv],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
    stderr=subprocess.PIPE,
    text=True,
  )


def distil(folder, *more):
  runs.save_teacher(folder / "teacher")
  named = ("--images", "photos", "--teacher", "./teacher")
  student = ("--student", STUDENT, "--image-size", "96")
  return start(folder, "distill", *named, *student, *more)


def test_a_usual_student(tmp_path):
  photographs(tmp_path / "photos", count=40, side=100)
  status, said = runs.finish(distil(tmp_path, "--steps", "4"))
  assert status == 0, said
  argv = ("embed", "photos", "--model", "runs/mine", "--out", "f.npz")
  status, said = runs.finish(start(tmp_path, *argv))
  assert status == 0, said
  with np.load(tmp_path / "f.npz") as found:
    assert found["features"].shape == (40, 512)
    assert found["features"].std(axis=0).max() > 0
  place = tmp_path / "runs" / "mine" / "export" / "timm"
  model, _ = kd_jax.load_pretrained(STUDENT, place)
  assert model.input_size == (3, 96, 96)


def test_ctrl_c_while_it_trains(tmp_path):
  photographs(tmp_path / "photos", count=16, side=100)
  flags = ("--steps", "200", "--batch-size", "8")
  process = distil(tmp_path, *flags)
  give_up = time.monotonic() + runs.PATIENCE
  while not runs.lines(tmp_path / "runs" / "mine"):
    assert process.poll() is None and time.monotonic() < give_up
    time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  status, said = runs.finish(process)
  last = said.splitlines()[-1]
  assert status == 0 and "the same command goes on" in last, said
  assert "Traceback" not in said
  (tmp_path / "runs" / "mine" / "config.py").write_text("x = 1")
  status, said = runs.finish(distil(tmp_path, *flags))
  assert status == 1 and "config.py: it does not define get_config" in said
