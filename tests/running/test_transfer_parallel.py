"""One device and eight devices fine-tune to the same weights and figures."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import runs

CASE = pathlib.Path(__file__).with_name("transfer_case.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  folder = tmp_path_factory.mktemp("parallel")
  path = folder / "found.npz"
  flags = {
    "XLA_FLAGS": runs.devices(8),
    "JAX_ENABLE_X64": "1",
    "PYTHONPATH": str(runs.ROOT),
  }
  done = subprocess.run(
    [sys.executable, str(CASE), str(folder), str(path)],
    env={**os.environ, **flags},
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
    timeout=runs.PATIENCE,
  )
  assert done.returncode == 0, done.stderr
  with np.load(path) as file:
    loaded = dict(file)
  assert loaded["devices"] == 8
  return loaded


def under(found, prefix):
  return {
    k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)
  }


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_weights_and_figures_of_one_and_eight_devices(found, task):
  one, eight = (under(found, f"{n}/{task}/weights/") for n in ("one", "eight"))
  assert set(one) == set(eight) and len(one) > 60
  for path, array in one.items():
    assert array.dtype == np.float64, path
    np.testing.assert_allclose(eight[path], array, 1e-9, 1e-10, err_msg=path)
  one, eight = (under(found, f"{n}/{task}/figures/") for n in ("one", "eight"))
  assert one == eight and len(one) >= 3
  # Six steps find hardly a box.
  assert all(0 < v < 1 or task == "detect" for v in one.values())


@pytest.mark.slow
def test_nothing_is_compiled_twice(found):
  for name in ("one", "eight"):
    for task in ("classify", "segment", "detect"):
      assert found[f"{name}/{task}/compiled"].tolist() == [1, 1]
