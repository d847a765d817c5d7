"""The CPU path of depthwise convolution against the native operation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.blocks import convolutions, depthwise

SHAPE = (3, 11, 14, 8)


def _arrays(size, window, dtype):
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=SHAPE), rng.normal(size=(size, size, 1, SHAPE[-1]))
  x, w = jnp.asarray(x, dtype), jnp.asarray(w, dtype)
  out = jax.eval_shape(functools.partial(depthwise.native, window=window), x, w)
  return x, w, jnp.asarray(rng.normal(size=out.shape), dtype)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _value_and_grads(conv, x, w, g, window):
  y, pull = jax.vjp(functools.partial(conv, window=window), x, w)
  return y, *pull(g)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_equals_native_with_gradients(size, stride, dilation):
  window = depthwise.Window(stride, dilation, dilation * (size - 1) // 2)
  with jax.enable_x64(True):
    arrays = _arrays(size, window, jnp.float64)
    got = _value_and_grads(depthwise.depthwise, *arrays, window)
    want = _value_and_grads(depthwise.native, *arrays, window)
  for a, b in zip(got, want, strict=True):
    assert a.dtype == jnp.float64
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, strict=True)


def test_bfloat16_accumulates_in_float32():
  window = depthwise.Window(1, 1, 1)
  arrays = _arrays(3, window, jnp.bfloat16)
  got = _value_and_grads(depthwise.depthwise, *arrays, window)
  wide = [a.astype(jnp.float32) for a in arrays]
  want = _value_and_grads(depthwise.native, *wide, window)
  for a, b in zip(got, want, strict=True):
    assert a.dtype == jnp.bfloat16
    # Half a unit in the last of 8 bits: the result is rounded once.
    np.testing.assert_allclose(a.astype(np.float32), b, rtol=2**-8, atol=1e-5)


def test_conv_takes_the_groups_from_the_shapes():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(1, 5, 5, 4)).astype(np.float32)
  w = rng.normal(size=(3, 3, 2, 6)).astype(np.float32)
  window = depthwise.Window(1, 1, 1)
  got = convolutions.conv(x, w, window)
  halves = [
    convolutions.conv(x[..., :2], w[..., :3], window),
    convolutions.conv(x[..., 2:], w[..., 3:], window),
  ]
  # Sums of 9 float32 products near 1, in an order of their own.
  want = np.concatenate(halves, -1)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_conv_uses_the_depthwise_path():
  window = depthwise.Window(1, 1, 1)
  x, w, _ = _arrays(3, window, jnp.float32)
  lowered = jax.jit(convolutions.conv, static_argnums=2).lower(x, w, window)
  assert "convolution" not in lowered.as_text()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_wider_than_the_map_is_cut_to_it(stride):
  rng = np.random.default_rng(2)
  window = depthwise.Window(stride, 1, 3)
  # Eight images: two turns of the loop.
  x = jnp.asarray(rng.normal(size=(8, 2, 3, 4)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(7, 7, 1, 4)), jnp.float32)
  cut, inner = convolutions.within(x.shape, w, window)
  assert cut.shape[:2] == (5, 5) and inner == window._replace(padding=2)
  g = depthwise.native(x, w, window)
  got = _value_and_grads(convolutions.conv, x, w, g, window)
  want = _value_and_grads(depthwise.native, x, w, g, window)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, strict=True)
