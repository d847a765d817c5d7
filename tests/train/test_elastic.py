"""A run goes on with other numbers of processes and devices, and other meshes.

In float64 every layout ends with the same bits: parameters are float32, and
what orders of summation change is far below their last digit.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import runs

SCRIPT = runs.ROOT / "launch" / "local.sh"
ENV = {"JAX_ENABLE_X64": "1", "PYTHON": sys.executable, **runs.ENV}
SPREAD = ("fsdp=True", "teacher.fsdp=True")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("elastic")


@pytest.fixture(scope="module")
def common(folder):
  """Fields of every run. The teacher's statistics are fitted once, for all."""
  teacher = runs.save_teacher(folder / "teacher")
  return (
    "dtype=float64",
    f"teacher.weights={teacher}",
    f"fit.artifact={folder / 'artifact.npz'}",
  )


@pytest.fixture(scope="module")
def alone(folder, common):
  """Weights of a run of one process with one device."""
  where = folder / "alone"
  finish(start(1, 1, where, *common), 0)
  return weights(where)


def start(processes, devices, where, *fields):
  return subprocess.Popen(
    [str(SCRIPT), str(processes), *runs.arguments(where, *fields)[1:]],
    cwd=runs.ROOT,
    env={**os.environ, **ENV, "KD_JAX_DEVICES_PER_PROCESS": str(devices)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process, status):
  _, said = process.communicate(timeout=runs.PATIENCE)
  assert process.returncode == status, said
  return said


def wait_for_checkpoint(process, where, after=0):
  give_up = time.monotonic() + runs.PATIENCE
  while not [step for step in runs.checkpoints(where) if step > after]:
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < give_up, "never came so far"
    time.sleep(0.01)


def member(where, index):
  """Process id of process `index` of the run in `where`."""
  for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      command = (path / "cmdline").read_bytes().decode().split("\0")
      variables = (path / "environ").read_bytes().decode().split("\0")
    except (OSError, UnicodeDecodeError):
      continue  # It ended, or is somebody else's.
    ours = "kd_jax.main" in command and str(where) in command
    if ours and f"KD_JAX_PROCESS={index}" in variables:
      return int(path.name)
  raise AssertionError(f"no process {index}")


def weights(where):
  return safetensors_numpy.load_file(where / "student" / "model.safetensors")


def assert_same_bits(found, want):
  assert found.keys() == want.keys()
  assert sum(np.ptp(array) > 0 for array in want.values()) == 60
  for name, array in want.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.slow
def test_four_processes_lose_one_and_go_on_as_two_and_as_one(
  folder, common, alone
):
  victim = 0  # which all others ask
  where = folder / f"victim{victim}"
  process = start(4, 2, where, *common, *SPREAD, "mesh.model=2")
  wait_for_checkpoint(process, where)
  then = time.monotonic()
  os.kill(member(where, victim), signal.SIGKILL)
  said = finish(process, 128 + signal.SIGKILL)
  assert time.monotonic() - then < 30
  assert f"process {victim} of 4 ended with status 137" in said
  saved = runs.checkpoints(where)[-1]
  assert saved < 12

  process = start(2, 2, where, *common, *SPREAD, "mesh.model=4")
  wait_for_checkpoint(process, where, saved)
  process.send_signal(signal.SIGTERM)
  said = finish(process, 0)
  assert f"continuing after step {saved}" in said
  saved = runs.checkpoints(where)[-1]
  assert f"stopped after step {saved} of 12" in said

  said = finish(start(1, 1, where, *common), 0)
  assert f"continuing after step {saved}" in said
  assert_same_bits(weights(where), alone)
