"""Power temperature scaling, against the original KDEP code."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from kd_jax.align import pts

GOLDEN = dict(
  np.load(Path(__file__).parents[1] / "golden" / "kdep_svd_pts.npz")
)
SETTINGS = {"pts_T0p1_n3": (0.1, 3), "pts_T0p03_n3": (0.03, 3)} | {
  "pts_T0p2_n2": (0.2, 2)
}


@pytest.mark.parametrize("name", SETTINGS)
def test_matches_original(name):
  got = pts.power_temperature(GOLDEN["proj16"], *SETTINGS[name])
  np.testing.assert_allclose(got, GOLDEN[name], rtol=2e-6)


def test_std_ratio_matches_original():
  names = ("X", "proj16", *SETTINGS)
  got = [pts.std_ratio(GOLDEN[name]) for name in names]
  np.testing.assert_allclose(got, GOLDEN["std_ratio"], rtol=1e-5)


def test_one_one_is_the_identity():
  z = GOLDEN["proj16"]
  np.testing.assert_array_equal(pts.power_temperature(z, 1.0, 1.0), z)


def test_is_odd_and_inverts_the_power():
  z = np.array([-2.0, -0.1, 0.0, 0.1, 2.0], np.float32)
  got = pts.power_temperature(z, 0.5, 3.0)
  np.testing.assert_allclose(np.asarray(got) ** 3 * 0.5, z, rtol=1e-5)
  np.testing.assert_array_equal(got, -got[::-1])


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_gradient_is_finite(power):
  z = np.array([-1.0, -1e-12, 0.0, 1e-12, 1.0], np.float32)

  def total(x):
    return pts.power_temperature(x, 0.1, power).sum()

  grad = jax.grad(total)(z)
  assert np.isfinite(grad).all()
  expected = 10 ** (1 / power) / power
  np.testing.assert_allclose(grad[-1], expected, rtol=1e-5)


@pytest.mark.parametrize("setting", [(0.0, 3.0), (0.1, 0.0), (-1.0, 1.0)])
def test_settings_are_positive(setting):
  with pytest.raises(ValueError, match="positive; got temperature="):
    pts.power_temperature(np.ones(2), *setting)
