"""One device, eight devices and sharded state compute the same."""

import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

import runs
from kd_jax.train import mesh as mesh_lib

CASE = pathlib.Path(__file__).with_name("parallel_case.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  path = tmp_path_factory.mktemp("parallel") / "found.npz"
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
  with np.load(path) as file:
    loaded = dict(file)
  assert loaded["devices"] == 8
  return loaded


def under(found, prefix):
  cut = {k.removeprefix(prefix): v for k, v in found.items()}
  return {k: v for k, v in cut.items() if k.startswith("[")}


@pytest.mark.parametrize(
  ("ours", "theirs"),
  [
    ("eight", "one"),
    ("eight_fsdp", "one"),
    ("eight_accum", "one_accum"),
    ("eight_teacher", "one"),
    ("square_both", "one"),
    ("model_alone", "one"),
    ("eight_groups", "one_groups"),
    ("square_halves", "one_halves"),
  ],
)
def test_five_steps_in_float64_are_the_same(found, ours, theirs):
  want = found[f"loss/{theirs}"]
  assert np.unique(want).size == 5 and want.min() > 0.1
  np.testing.assert_allclose(found[f"loss/{ours}"], want, rtol=1e-9)
  for kind, count in (("params", 36), ("stats", 24)):
    # Statistics agree only if BatchNorm sees the rows of all devices.
    expected = under(found, f"{kind}/{theirs}")
    got = under(found, f"{kind}/{ours}")
    assert len(expected) == len(got) == count
    for path, array in expected.items():
      assert array.dtype == np.float64 and np.ptp(array) > 0, path
      np.testing.assert_allclose(got[path], array, 1e-9, 1e-9, err_msg=path)


def test_microbatches_change_what_batchnorm_sees(found):
  assert not np.allclose(found["loss/one"], found["loss/one_accum"], rtol=1e-3)


def test_first_step_in_float32(found):
  one, eight = found["loss/one_float32"], found["loss/eight_float32"]
  np.testing.assert_allclose(eight[0], one[0], rtol=1e-5)
  np.testing.assert_allclose(one[0], found["loss/one"][0], rtol=1e-5)


def test_fsdp_leaves_an_eighth_on_every_device(found):
  shares = under(found, "share")
  assert len(shares) == 72  # parameters and momentum
  assert {path: 1 / 8 for path in shares} == shares


def test_a_sharded_checkpoint_is_read_on_one_device_and_on_eight(found):
  saved = under(found, "params/eight_fsdp")
  for name in ("one", "eight_fsdp"):
    restored = under(found, f"restored/{name}")
    assert list(restored) == list(saved)
    for path, array in saved.items():
      assert np.array_equal(restored[path], array), path
  shares = under(found, "restored_share")
  assert len(shares) == 72 and {float(x) for x in shares.values()} == {1 / 8}


def test_a_batch_that_eight_devices_cannot_share_is_refused():
  eight = types.SimpleNamespace(size=8)
  mesh_lib.check_batch(32, eight, 2)
  with pytest.raises(ValueError, match=r"8 devices.*--config.batch_size=32"):
    mesh_lib.check_batch(30, eight)
  with pytest.raises(ValueError, match="accum_steps is 0"):
    mesh_lib.check_batch(32, eight, 0)


def test_basis_fitted_on_eight_devices(found):
  one, eight = (
    {
      k.removeprefix(f"basis/{n}/"): v
      for k, v in found.items()
      if f"/{n}/" in k
    }
    for n in ("one", "eight")
  )
  assert one["count"] == eight["count"] == 5 * 16 + 10
  values = one["singular_values"]
  assert values[-1] > 1e-3 * values[0]
  # Eight devices sum float32 rows in another order; what that costs is
  # relative to the largest number, some 1e-7 of it, and here tenfold.
  near = {"rtol": 0, "atol": 1e-6 * np.abs(one["mean"]).max()}
  np.testing.assert_allclose(eight["mean"], one["mean"], **near)
  near = {"rtol": 0, "atol": 1e-5 * values[0]}
  np.testing.assert_allclose(eight["singular_values"], values, **near)
  for width in separated(values):
    apart = projector(eight["basis"][:, :width])
    apart -= projector(one["basis"][:, :width])
    assert np.linalg.norm(apart, 2) < 1e-3, width


def separated(values):
  """Numbers of leading directions that are determined as a space.

  Directions of nearly equal values may turn into each other. Where the squared
  values are apart by 1 % of the largest, an error of 1e-6 turns by 1e-4.
  """
  squares = np.square(values / values[0])
  widths = np.flatnonzero(-np.diff(squares) > 0.01) + 1
  assert len(widths) >= 5
  return widths


def projector(basis):
  """Onto the columns' space: neither their signs nor turns inside show."""
  return basis @ basis.T


def test_evaluation_on_eight_devices(found):
  one, eight = found["feature/one"], found["feature/eight"]
  assert one.shape == (16 + 16 + 5, 16) and one.std() > 0.1
  # Float32 sums of a row may depend on how many rows a device has.
  np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5)
  figures = {
    n: {k: v for k, v in found.items() if k.startswith(f"figure/{n}/")}
    for n in ("one", "eight")
  }
  assert len(figures["one"]) == 2
  for (_, got), (name, want) in zip(
    figures["eight"].items(), figures["one"].items(), strict=True
  ):
    assert want > 0, name
    np.testing.assert_allclose(got, want, rtol=1e-4, err_msg=name)
