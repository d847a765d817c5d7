"""Normalisation by the batch against its definition, differentiated by JAX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.blocks import normalise

EPS = 1e-3


def _plain(x, scale, bias):
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes)
  var = jnp.square(x - mean).mean(axes)
  return normalise.by_moments(x, mean, var, scale, bias, EPS), (mean, var)


def _loss(function, x, scale, bias, weights):
  y, (mean, var) = function(x, scale, bias)
  heavy, to_mean, to_var = weights
  return (jnp.tanh(y) * heavy).sum() + (mean * to_mean + var * to_var).sum()


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (9, 2)], ids=str)
def test_equals_what_jax_derives(shape):
  rng = np.random.default_rng(0)
  sizes = (shape, shape[-1:], shape[-1:])
  with jax.enable_x64(True):
    given = [jnp.asarray(rng.normal(2, 1, size)) for size in sizes]
    weights = [jnp.asarray(rng.normal(size=size)) for size in sizes]

    def everything(function):
      loss = functools.partial(_loss, function, weights=weights)
      slopes = jax.grad(loss, (0, 1, 2))
      twice = jax.grad(lambda *a: sum(jnp.square(d).sum() for d in slopes(*a)))
      return loss(*given), slopes(*given), twice(*given)

    mine = lambda x, s, b: normalise.by_batch(x, s, b, EPS)  # noqa: E731
    got, want = (jax.jit(lambda f=f: everything(f))() for f in (mine, _plain))
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    assert a.dtype == jnp.float64
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
