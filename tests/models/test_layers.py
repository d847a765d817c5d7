"""PyTorch's conventions against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors

from kd_jax.models.blocks import layers


def _normalise(x, train, **stats):
  width = x.shape[-1]
  variables = {
    "params": {"scale": jnp.full(width, 2.0), "bias": jnp.full(width, 0.5)},
    "batch_stats": {"mean": jnp.zeros(width), "var": jnp.ones(width), **stats},
  }
  norm = layers.BatchNorm()
  if not train:
    return norm.apply(variables, x, train=False), None
  return norm.apply(variables, x, train=True, mutable=["batch_stats"])


def test_batch_norm_in_training():
  rng = np.random.default_rng(0)
  x = rng.normal(3.0, 2.0, (2, 3, 2, 5)).astype(np.float32)
  y, new = _normalise(jnp.asarray(x), train=True)
  flat = x.reshape(-1, 5).astype(np.float64)
  mean, var = flat.mean(0), flat.var(0)
  want = (x - mean) / np.sqrt(var + 1e-5) * 2 + 0.5
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
  stats = new["batch_stats"]
  # Float32 sums of 12 values near 3.
  np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
  unbiased = 0.9 + 0.1 * flat.var(0, ddof=1)
  np.testing.assert_allclose(stats["var"], unbiased, rtol=1e-5)
  assert abs(unbiased - (0.9 + 0.1 * var)).min() > 1e-3


def test_batch_norm_in_evaluation_uses_the_running_statistics():
  x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
  mean, var = jnp.asarray([1.0, 3.0]), jnp.asarray([4.0, 0.25])
  y, _ = _normalise(x, train=False, mean=mean, var=var)
  want = [[0.5, -3.5], [2.5, 4.5]]
  np.testing.assert_allclose(y, want, rtol=1e-4)


def test_batch_norm_keeps_digits_of_a_large_mean():
  rng = np.random.default_rng(0)
  x = (1000 + rng.normal(size=(4096, 1))).astype(np.float32)
  y, _ = _normalise(jnp.asarray(x), train=True)
  want = (x - x.mean(dtype=np.float64)) / x.std(dtype=np.float64) * 2 + 0.5
  np.testing.assert_allclose(y, want, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_batch_norm_dtypes(dtype):
  with jax.enable_x64(True):
    x = jnp.asarray([[1.0], [2.0], [4.0]], dtype)
    norm = layers.BatchNorm(dtype)
    variables = norm.init(jax.random.key(0), x, train=False)
    variables = jax.tree.map(lambda a: a.astype(jnp.float32), variables)
    y, new = norm.apply(variables, x, train=True, mutable=["batch_stats"])
  assert y.dtype == dtype
  assert new["batch_stats"]["var"].dtype == jnp.float32
  np.testing.assert_allclose(new["batch_stats"]["mean"], [7 / 30], rtol=1e-6)


def test_batch_norm_needs_two_values_per_channel():
  with pytest.raises(ValueError, match=r"\(1, 1, 1, 5\): one value per ch"):
    _normalise(jnp.ones((1, 1, 1, 5)), train=True)


def test_max_pool_pads_with_minus_infinity():
  x = jnp.arange(-16.0, 0.0).reshape(1, 4, 4, 1)
  got = layers.max_pool(x)[0, :, :, 0]
  np.testing.assert_array_equal(got, [[-11, -9], [-3, -1]])


@pytest.mark.parametrize("size", [5, 6])
def test_conv_pads_both_sides_alike(size):
  x = jnp.ones((1, size, size, 1))
  conv = layers.Conv(1, 3, 2)
  y = conv.apply({"params": {"kernel": jnp.ones((3, 3, 1, 1))}}, x)
  edge = {5: [4, 6, 4], 6: [4, 6, 6]}[size]
  np.testing.assert_array_equal(y[0, 0, :, 0], edge)


@pytest.mark.parametrize(
  "kind, want",
  [
    ("avg", [[2.5, 4.0]]),
    ("max", [[4.0, 10.0]]),
    ("avgmax", [[3.25, 7.0]]),
    ("catavgmax", [[2.5, 4.0, 4.0, 10.0]]),
  ],
)
def test_global_pool(kind, want):
  x = jnp.asarray([1.0, 2, 2, 0, 3, 4, 4, 10]).reshape(1, 2, 2, 2)
  got = layers.global_pool(x, kind)
  np.testing.assert_array_equal(got, want)
  assert got.shape[1] == 2 * layers.pool_factor(kind)


def test_drop_path_drops_examples_and_keeps_the_mean():
  x = jnp.ones((4000, 1, 2, 3))
  drop = layers.DropPath(0.25)
  y = drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
  values = np.unique(np.asarray(y))
  np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-6)
  assert (y == y[:, :1, :1, :1]).all()
  assert abs(float(y.mean()) - 1) < 0.03
  np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


def test_initialisers_have_the_documented_scale():
  key = jax.random.key(0)
  conv = layers.kaiming_fan_out(key, (3, 3, 20, 400), jnp.float32)
  assert abs(float(conv.std()) / np.sqrt(2 / 3600) - 1) < 0.02
  # Normal, not truncated: torch's has tails.
  assert float(abs(conv).max() / conv.std()) > 3.5
  linear = layers.torch_linear_init(64)(key, (64, 500), jnp.float32)
  np.testing.assert_allclose(abs(linear).max(), 1 / 8, rtol=1e-3)
  assert abs(float(linear.std()) * 8 * np.sqrt(3) - 1) < 0.02


def test_a_parameter_of_another_shape():
  conv = layers.Conv(4, size=3)
  variables = conv.init(jax.random.key(0), jnp.ones((1, 5, 5, 2)))
  with pytest.raises(errors.ScopeParamShapeError, match=r"\(3, 3, 3, 4\)"):
    conv.apply(variables, jnp.ones((1, 5, 5, 3)))
