"""The CPU path of depthwise convolution against the native operation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import depthwise

SHAPE = (3, 11, 14, 8)


def _arrays(size, dtype):
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=SHAPE), rng.normal(size=(size, size, 1, SHAPE[-1]))
  return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _value_and_grads(conv, x, w, window):
  y, pull = jax.vjp(functools.partial(conv, window=window), x, w)
  weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
  return y, *pull(weights)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_equals_native_with_gradients(size, stride, dilation):
  window = depthwise.Window(stride, dilation, dilation * (size - 1) // 2)
  with jax.enable_x64(True):
    arrays = _arrays(size, jnp.float64)
    got = _value_and_grads(depthwise.depthwise, *arrays, window)
    want = _value_and_grads(depthwise.native, *arrays, window)
  for a, b in zip(got, want, strict=True):
    assert a.dtype == jnp.float64
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, strict=True)


def test_bfloat16_accumulates_in_float32():
  window = depthwise.Window(1, 1, 1)
  x, w = _arrays(3, jnp.bfloat16)
  got = _value_and_grads(depthwise.depthwise, x, w, window)
  wide = x.astype(jnp.float32), w.astype(jnp.float32)
  want = _value_and_grads(depthwise.native, *wide, window)
  # The pulled-back weights are bfloat16 too: one rounding on either side.
  for a, b in zip(got, want, strict=True):
    assert a.dtype == jnp.bfloat16
    gap = np.abs(a.astype(np.float32) - b).max() / np.abs(b).max()
    assert gap < 0.01


def test_conv_takes_the_groups_from_the_shapes():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(1, 5, 5, 4)).astype(np.float32)
  w = rng.normal(size=(3, 3, 2, 6)).astype(np.float32)
  window = depthwise.Window(1, 1, 1)
  got = depthwise.conv(x, w, window)
  halves = [
    depthwise.conv(x[..., :2], w[..., :3], window),
    depthwise.conv(x[..., 2:], w[..., 3:], window),
  ]
  np.testing.assert_allclose(got, np.concatenate(halves, -1), rtol=1e-5)


def test_conv_uses_the_depthwise_path():
  x, w = _arrays(3, jnp.float32)
  text = str(
    jax.make_jaxpr(depthwise.conv, static_argnums=2)(
      x, w, depthwise.Window(1, 1, 1)
    )
  )
  assert "custom_vjp" in text
  text = (
    jax.jit(depthwise.conv, static_argnums=2)
    .lower(x, w, depthwise.Window(1, 1, 1))
    .as_text()
  )
  assert "convolution" not in text
