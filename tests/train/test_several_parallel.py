"""Several teachers on one device and on eight."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import runs

CASE = pathlib.Path(__file__).with_name("several_parallel_case.py")


@pytest.mark.slow
def test_eight_devices_draw_and_learn_what_one_does():
  flags = {
    "XLA_FLAGS": runs.devices(8),
    "JAX_ENABLE_X64": "1",
    "PYTHONPATH": str(runs.ROOT),
  }
  done = subprocess.run(
    [sys.executable, str(CASE)],
    env={**os.environ, **flags},
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["devices"] == 8 and found["apart"] < 1e-10
  losses = np.array(found["losses"])
  assert np.unique(losses).size == losses.size and losses.min() > 0
