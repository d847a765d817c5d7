"""Linear layers of maps against Flax's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kd_jax.models.blocks import layers


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_equals_flax_with_gradients(shape):
  x = jax.random.normal(jax.random.key(0), shape, jnp.float32)
  ours, flax = layers.Dense(4), nn.Dense(4)
  params = flax.init(jax.random.key(1), x)

  def value_and_grads(layer):
    y, pull = jax.vjp(layer.apply, params, x)
    return y, pull(jnp.cos(y))

  got, want = value_and_grads(ours), value_and_grads(flax)
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, strict=True)


def test_sums_over_one_axis_on_cpu():
  # Over several, XLA's CPU backend is four times slower.
  x, layer = jnp.ones((2, 3, 5, 6)), layers.Dense(4)
  params = layer.init(jax.random.key(0), x)
  loss = lambda params: layer.apply(params, x).sum()  # noqa: E731
  text = jax.jit(jax.grad(loss)).lower(params).as_text()
  assert "contracting_dims = [0] x [0]" in text, text
  assert "contracting_dims = [0, 1, 2]" not in text
