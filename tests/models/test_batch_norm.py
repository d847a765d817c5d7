"""Statistics of BatchNorm: over groups of images, and in one sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.blocks import layers

ROWS, GROUP = 12, 4


def images():
  """Groups that differ in brightness and contrast."""
  rng = np.random.default_rng(0)
  bright = np.repeat([0.0, 3.0, -2.0], GROUP)[:, None, None, None]
  return bright + (1 + bright**2) * rng.normal(size=(ROWS, 3, 2, 5))


def run(x, **fields):
  """(output, running statistics) of a fresh layer in training mode."""
  norm = layers.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=False)
  return norm.apply(variables, x, train=True, mutable=["batch_stats"], **fields)


@pytest.mark.parametrize("one_sum", [False, True])
def test_groups_are_normalised_on_their_own(one_sum):
  with jax.enable_x64(True):
    x = images()
    y, new = run(jnp.asarray(x), group=GROUP, one_sum=one_sum)
    parts = x.reshape(-1, GROUP, 3, 2, 5)
    mean = parts.mean((1, 2, 3), keepdims=True)
    var = parts.var((1, 2, 3), keepdims=True)
    want = (parts - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(y, want.reshape(x.shape), 1e-9, 1e-9)
    stats = new["batch_stats"]
    unbiased = parts.var((1, 2, 3), ddof=1).mean(0)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean.mean((0, 1, 2, 3)))
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * unbiased)


@pytest.mark.parametrize("shape", [(ROWS, 3, 2, 5), (ROWS, 7, 5), (ROWS, 5)])
def test_one_sum_is_two_passes_with_their_gradients(shape):
  rng = np.random.default_rng(1)
  with jax.enable_x64(True):
    x = jnp.asarray(2 + 3 * rng.normal(size=shape))
    weight = jnp.asarray(rng.normal(size=shape))

    def found(one_sum):
      def total(x):
        y, new = run(x, one_sum=one_sum)
        return jnp.sum(weight * y), (y, new["batch_stats"])

      return jax.value_and_grad(total, has_aux=True)(x)

    two, one = found(False), found(True)
    assert np.ptp(two[1]) > 0.1
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(b, a, 1e-9, 1e-9), two, one
    )


def test_a_constant_channel_has_no_negative_variance():
  x = jnp.full((64, 3, 3, 1), 1234.567)
  y, _ = run(x, one_sum=True)
  assert np.isfinite(y).all() and np.abs(y).max() < 1


def test_groups_of_one_value_are_refused():
  with pytest.raises(ValueError, match="batch_norm_group=1"):
    run(jnp.ones((4, 1, 1, 5)), group=1)


def test_layers_inside_the_block_are_told():
  x = jnp.asarray(images(), jnp.float32)
  norm = layers.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=False)

  def apply():
    return norm.apply(variables, x, train=True, mutable=["batch_stats"])[0]

  alone = apply()
  with layers.batch_norms(group=GROUP, one_sum=True):
    grouped = apply()
  np.testing.assert_array_equal(apply(), alone)
  want = norm.apply(
    variables, x, train=True, mutable=["batch_stats"], group=GROUP
  )[0]
  np.testing.assert_allclose(grouped, want, atol=1e-4)
  assert np.abs(grouped - alone).max() > 0.5
