"""launch/local.sh: real processes that train together, stop and die."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import runs
from safetensors import numpy as safetensors_numpy

from kd_jax.train import metrics

SCRIPT = runs.ROOT / "launch" / "local.sh"
STEPS = 12


def start(workdir, *fields, count="2", devices="2"):
  return subprocess.Popen(
    [str(SCRIPT), count, *runs.arguments(workdir, *fields)[1:]],
    cwd=runs.ROOT,
    env={
      **os.environ,
      **runs.ENV,
      "PYTHON": sys.executable,
      "KD_JAX_DEVICES_PER_PROCESS": devices,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(process, condition):
  give_up = time.monotonic() + runs.PATIENCE
  while not condition():
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < give_up, "never came so far"
    time.sleep(0.01)


def members(workdir):
  """{process number: process id} of the run in `workdir`."""
  found = {}
  for path in runs.pathlib.Path("/proc").glob("[0-9]*"):
    try:
      command = (path / "cmdline").read_bytes().decode().split("\0")
      variables = (path / "environ").read_bytes().decode().split("\0")
    except (OSError, UnicodeDecodeError):
      continue  # It ended, or is somebody else's.
    if "kd_jax.main" in command and str(workdir) in command:
      number = dict(v.partition("=")[::2] for v in variables)["KD_JAX_PROCESS"]
      found[int(number)] = int(path.name)
  return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="module")
def teacher(folder):
  return f"teacher.weights={runs.save_teacher(folder / 'teacher')}"


@pytest.fixture(scope="module")
def together(folder, teacher):
  status, error = runs.finish(start(folder / "together", teacher))
  assert status == 0, error
  assert "devices                   4 x cpu" in error
  return folder / "together"


def losses(workdir):
  found = (line for line in metrics.read(workdir) if "loss/feature" in line)
  return {line["step"]: line["loss/feature"] for line in found}


def weights(workdir):
  return safetensors_numpy.load_file(workdir / "student" / "model.safetensors")


def test_two_processes_equal_one_with_as_many_devices(
  together, folder, teacher
):
  flag = "--xla_force_host_platform_device_count=4"
  runs.complete(folder / "alone", teacher, XLA_FLAGS=flag)
  ours, theirs = losses(together), losses(folder / "alone")
  assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
  first = [1, 2, 3]
  np.testing.assert_allclose(
    [ours[s] for s in first], [theirs[s] for s in first], rtol=1e-5
  )
  for name, array in weights(folder / "alone").items():
    np.testing.assert_allclose(
      weights(together)[name], array, 1e-2, 1e-3, err_msg=name
    )


def test_sigterm_saves_everywhere_and_the_same_command_goes_on(
  together, folder, teacher
):
  where = folder / "stopped"
  process = start(where, teacher)
  wait_for(process, lambda: runs.lines(where) >= 2)
  process.send_signal(signal.SIGTERM)
  status, error = runs.finish(process)
  assert status == 0, error
  said = [line for line in error.splitlines() if "stopped after step" in line]
  assert len(said) == 2 and said[0].split()[-12:] == said[1].split()[-12:]
  step = runs.checkpoints(where)[-1]
  assert f"stopped after step {step} of 12" in said[0] and step < STEPS
  status, error = runs.finish(start(where, teacher))
  assert status == 0 and f"continuing after step {step}" in error
  assert list(losses(where)) == list(range(1, STEPS + 1))
  assert losses(where) == losses(together)
  for name, array in weights(together).items():
    assert np.array_equal(weights(where)[name], array), name


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_at_once(folder, teacher, victim):
  where = folder / f"killed{victim}"
  process = start(where, teacher, "steps=1000000", devices="1")
  wait_for(process, lambda: runs.lines(where) >= 2)
  pids = members(where)
  assert sorted(pids) == [0, 1]
  then = time.monotonic()
  os.kill(pids[victim], signal.SIGKILL)
  status, error = runs.finish(process)
  assert time.monotonic() - then < 15
  assert status == 128 + signal.SIGKILL
  said = [line for line in error.splitlines() if "launch/local.sh" in line]
  assert said == [
    f"launch/local.sh: process {victim} of 2 ended with status 137 "
    "(signal 9); all ended"
  ]
  assert members(where) == {}


def test_a_mistake_is_told_by_every_process_and_ends_all(folder):
  process = start(folder / "wrong", "stepps=1", devices="1")
  status, error = runs.finish(process)
  assert status == 1 and "Traceback" not in error
  said = "error: there is no field config.stepps"
  assert error.count(said) == 2 and f"[1] {said}" in error
  assert error.splitlines()[-1].endswith("ended with status 1; all ended")


@pytest.mark.parametrize("count", ["0", "two", "-1", ""])
def test_usage(folder, count):
  status, error = runs.finish(start(folder / "none", count=count))
  assert status == 2 and error.count("\n") == 1
  assert "usage: launch/local.sh N CONFIG [arguments], N >= 1" in error


def test_half_described_processes_are_refused(folder, teacher):
  where = folder / "half"
  status, error = runs.finish(
    runs.start(where, teacher, KD_JAX_COORDINATOR="127.0.0.1:1")
  )
  assert status == 1
  assert "KD_JAX_PROCESSES and KD_JAX_PROCESS are ['', '']" in error
