"""A teacher that is spread over devices says what a whole one says."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

import runs
from kd_jax.teachers import none
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.teacher.teaching import Teaching

CASE = pathlib.Path(__file__).with_name("sharded_case.py")
# The most that the first device may hold of all weights.
SHARES = {
  "model 2": 0.62,
  "model 8": 0.35,
  "fsdp": 0.3,
  "model 4 and fsdp": 0.3,
}


@pytest.mark.slow
def test_spread_teachers_in_float64(tmp_path):
  path = tmp_path / "found.json"
  flags = {
    "XLA_FLAGS": runs.devices(8),
    "JAX_ENABLE_X64": "1",
    "PYTHONPATH": str(runs.ROOT),
  }
  done = subprocess.run(
    [sys.executable, str(CASE), str(path)],
    env={**os.environ, **flags},
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(path.read_text())
  assert len(found) == 16
  for name, (error, share) in found.items():
    assert error < 1e-11, name
    assert share < SHARES[name.partition(", ")[2]], (name, share)


def test_a_mesh_that_the_devices_do_not_fill_is_refused():
  with pytest.raises(ValueError, match="mesh.model is 3; it must divide"):
    mesh_lib.make_mesh(jax.devices() * 4, model=3)


def test_a_teacher_without_layers_shares_none():
  teaching = Teaching(none.Source(), {}, "x")
  mesh = mesh_lib.make_mesh(jax.devices() * 2, model=2)
  with pytest.raises(ValueError, match="mesh.model is 2, but this teacher"):
    teaching.on(mesh)
