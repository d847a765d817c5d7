"""launch/local.sh: real processes that train together, stop and die."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import runs
from kd_jax.report import metrics

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


STUB = """#!/bin/sh
case $1 in
  -c) echo 12345 ;;
  *) echo "$KD_JAX_PROCESS of $KD_JAX_PROCESSES: ${CUDA_VISIBLE_DEVICES-unset}"
esac
"""
GPU = "GPU {}: NVIDIA H100 80GB HBM3 (UUID: GPU-4c0b{:04})"


def shared_out(folder, count, gpus, **variables):
  """(status, {process: its CUDA_VISIBLE_DEVICES}, what was said).

  Nothing but stand-ins is started, and `nvidia-smi` lists so many GPUs; None
  is a machine without it.
  """
  stubs = {"python": STUB}
  if gpus is not None:
    listed = "".join(f"echo '{GPU.format(i, i)}'\n" for i in range(gpus))
    stubs["nvidia-smi"] = (
      f'#!/bin/sh\n[ "$1" = --list-gpus ] && {{\n{listed}:; }}'
    )
  for name, text in stubs.items():
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
  for name in ("bash", "sed", "sleep"):
    (folder / name).symlink_to(shutil.which(name))
  done = subprocess.run(
    [str(SCRIPT), str(count), "config.py"],
    env={"PATH": str(folder), **variables},
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  lines = re.findall(rf"(\d) of {count}: (.*)", done.stdout + done.stderr)
  return done.returncode, dict(lines), done.stderr


@pytest.mark.parametrize(
  ("count", "gpus", "variables", "wanted"),
  [
    (2, 4, {}, {"0": "0,1", "1": "2,3"}),
    (3, 3, {}, {"0": "0", "1": "1", "2": "2"}),
    (1, 2, {}, {"0": "0,1"}),
    (2, 0, {}, {"0": "unset", "1": "unset"}),
    (2, None, {}, {"0": "unset", "1": "unset"}),
    (2, 4, {"CUDA_VISIBLE_DEVICES": "3,1"}, {"0": "3", "1": "1"}),
    (2, 4, {"CUDA_VISIBLE_DEVICES": ""}, {"0": "", "1": ""}),
    (2, 4, {"JAX_PLATFORMS": "cpu"}, {"0": "unset", "1": "unset"}),
    (2, 3, {"KD_JAX_DEVICES_PER_PROCESS": "1"}, {"0": "unset", "1": "unset"}),
  ],
)
def test_gpus_are_shared_out(tmp_path, count, gpus, variables, wanted):
  status, found, said = shared_out(tmp_path, count, gpus, **variables)
  assert (status, found) == (0, wanted), said


def test_dry_run_prints_what_would_run(tmp_path):
  _, told, _ = shared_out(tmp_path, 2, 4)
  done = subprocess.run(
    [str(SCRIPT), "--dry-run", "2", "config.py", "--workdir", "/a b"],
    env={"PATH": str(tmp_path)},
    capture_output=True,
    text=True,
    check=True,
  )
  lines = [shlex.split(line) for line in done.stdout.splitlines()]
  for i, words in enumerate(lines):
    assert words[1:-7] == [
      "KD_JAX_COORDINATOR=127.0.0.1:29500",
      "KD_JAX_PROCESSES=2",
      f"KD_JAX_PROCESS={i}",
      f"CUDA_VISIBLE_DEVICES={told[str(i)]}",
    ]
    assert words[-7:] == (
      ["python", "-m", "kd_jax.main", "--config", "config.py"]
      + ["--workdir", "/a b"]
    )
  assert len(lines) == 2 and done.stderr == ""


@pytest.mark.parametrize(
  ("count", "gpus", "variables"),
  [(2, 3, {}), (2, 1, {}), (2, 4, {"CUDA_VISIBLE_DEVICES": "0,1,2"})],
)
def test_gpus_that_do_not_split_are_refused(tmp_path, count, gpus, variables):
  status, found, said = shared_out(tmp_path, count, gpus, **variables)
  assert (status, found) == (2, {})
  gpus = 3 if variables else gpus
  assert f": {gpus} GPUs do not split over 2 processes; start" in said
  assert said.count("\n") == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="module")
def teacher(folder):
  return f"teacher.weights={runs.save_teacher(folder / 'teacher')}"


def losses(workdir):
  found = (line for line in metrics.read(workdir) if "loss/feature" in line)
  return {line["step"]: line["loss/feature"] for line in found}


def weights(workdir):
  return safetensors_numpy.load_file(workdir / "student" / "model.safetensors")


def kill(process, workdir, victim):
  """Ends one process of a run; the last line that the others leave."""
  pids = members(workdir)
  assert sorted(pids) == [0, 1]
  then = time.monotonic()
  os.kill(pids[victim], signal.SIGKILL)
  status, error = runs.finish(process)
  assert time.monotonic() - then < 30  # heartbeats of 10 s, and a busy machine
  assert status == 128 + signal.SIGKILL and members(workdir) == {}
  said = [line for line in error.splitlines() if "launch/local.sh" in line]
  assert len(said) == 1
  return said[0]


def test_the_first_process_is_killed(folder, teacher):
  where = folder / "first"
  process = start(where, teacher)
  wait_for(process, (where / "config.json").exists)
  assert kill(process, where, 0) == (
    "launch/local.sh: process 0 of 2 ended with status 137 (signal 9); all "
    "ended"
  )


@pytest.mark.slow
def test_killed_and_resumed_processes_equal_one(folder, teacher):
  where = folder / "together"
  process = start(where, teacher)
  wait_for(process, lambda: runs.checkpoints(where))
  assert "process 1 of 2 ended with status 137" in kill(process, where, 1)
  saved = runs.checkpoints(where)[-1]

  status, error = runs.finish(start(where, teacher))
  assert status == 0 and f"continuing after step {saved}" in error
  assert "devices                   4 x cpu" in error

  runs.complete(folder / "alone", teacher, XLA_FLAGS=runs.devices(4))
  ours, theirs = losses(where), losses(folder / "alone")
  assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
  # Processes sum gradients in another order than the devices of one; float32
  # steps multiply that. A batch that was skipped or seen twice is far off.
  np.testing.assert_allclose(
    list(ours.values()), list(theirs.values()), rtol=1e-4
  )
  for name, array in weights(folder / "alone").items():
    got = weights(where)[name]
    np.testing.assert_allclose(got, array, 1e-3, 1e-4, err_msg=name)


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
  assert "KD_JAX_PROCESS are ['127.0.0.1:1', '', '']" in error
