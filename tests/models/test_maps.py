"""Resizing and pooling with matrices, against plain loops."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.blocks import maps

X = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)


def bilinear(x, size, align_corners):
  """Pixel by pixel, with the rule of PyTorch's documentation."""
  h, w = x.shape[1:3]
  out = np.empty((len(x), *size, x.shape[-1]))

  def source(i, old, new):
    if align_corners:
      return i * (old - 1) / (new - 1) if new > 1 else 0.0
    return max((i + 0.5) * old / new - 0.5, 0.0)

  for i in range(size[0]):
    for j in range(size[1]):
      y, z = source(i, h, size[0]), source(j, w, size[1])
      a, b = int(y), int(z)
      c, d = min(a + 1, h - 1), min(b + 1, w - 1)
      y, z = y - a, z - b
      out[:, i, j] = (1 - y) * ((1 - z) * x[:, a, b] + z * x[:, a, d])
      out[:, i, j] += y * ((1 - z) * x[:, c, b] + z * x[:, c, d])
  return out


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(9, 13), (1, 3), (3, 7), (10, 14), (5, 1)])
def test_resize(size, align_corners):
  got = maps.resize(X, size, align_corners=align_corners)
  want = bilinear(X, size, align_corners)
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_corners_stay_and_one_pixel_spreads():
  got = np.asarray(maps.resize(X, (97, 33), align_corners=True))
  np.testing.assert_array_equal(got[:, ::96, ::32], X[:, ::4, ::6])
  one = maps.resize(X[:, :1, :1], (4, 4), align_corners=True)
  np.testing.assert_array_equal(one, np.broadcast_to(X[:, :1, :1], one.shape))


def test_resize_is_computed_in_float32():
  low = jnp.asarray(X, jnp.bfloat16)
  got = maps.resize(low, (9, 13), align_corners=True)
  want = bilinear(np.asarray(low, np.float64), (9, 13), True)
  assert got.dtype == jnp.bfloat16
  # One rounding at the end, 2^-9 of the value.
  np.testing.assert_allclose(np.float64(got), want, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_pool(bins):
  got = np.asarray(maps.pool(X, bins))
  for i in range(bins):
    for j in range(bins):
      rows = slice(i * 5 // bins, -(-(i + 1) * 5 // bins))
      columns = slice(j * 7 // bins, -(-(j + 1) * 7 // bins))
      want = X[:, rows, columns].mean((1, 2))
      np.testing.assert_allclose(got[:, i, j], want, atol=1e-6)


def test_nearest():
  got = np.asarray(maps.nearest(X, (10, 21)))
  np.testing.assert_array_equal(got, X.repeat(2, 1).repeat(3, 2))
  assert np.asarray(maps.nearest(X, (8, 7)))[0, :, 0, 0].tolist() == [
    X[0, i * 5 // 8, 0, 0] for i in range(8)
  ]
