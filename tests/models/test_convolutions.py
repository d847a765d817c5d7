"""The CPU forms of convolutions and pooling against the native operations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.blocks import convolutions, depthwise, forms, pooling
from kd_jax.models.blocks.convolutions import Forms, Window

# (side of the map, kernel, stride, dilation, padding, channels, features,
# groups): every form, also for maps smaller than the kernel, odd sizes,
# padding that the windows do not reach, and more or fewer channels than before.
CASES = [
  (6, 1, 1, 1, 0, 4, 6, 1),
  (7, 1, 2, 1, 0, 6, 4, 1),
  (4, 1, 3, 1, 1, 4, 4, 1),
  (13, 3, 1, 1, 1, 44, 5, 1),
  (26, 3, 2, 1, 1, 16, 5, 1),
  (9, 3, 2, 1, 1, 6, 4, 1),
  (8, 3, 2, 1, 1, 3, 4, 1),
  (14, 3, 1, 2, 2, 16, 3, 1),
  (2, 3, 1, 1, 1, 3, 5, 1),
  (1, 3, 2, 1, 1, 5, 3, 1),
  (3, 3, 1, 2, 2, 4, 4, 1),
  (3, 5, 1, 1, 2, 4, 4, 1),
  (8, 2, 2, 1, 0, 4, 6, 1),
  (9, 4, 4, 1, 0, 3, 5, 1),
  (27, 7, 2, 1, 3, 3, 4, 1),
  (11, 3, 1, 1, 1, 3, 8, 1),
  (8, 5, 1, 1, 2, 8, 12, 1),
  (9, 7, 1, 1, 3, 4, 4, 1),
  (12, 3, 1, 1, 1, 6, 9, 3),
  (5, 3, 2, 1, 1, 4, 8, 2),
  (5, 3, 2, 2, 2, 4, 8, 4),
]
DTYPES = {jnp.float64: 1e-13, jnp.float32: 1e-6}


@pytest.fixture(autouse=True, scope="module")
def _forms_for_small_shapes():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(convolutions, "WORTH", 0)
    patch.setattr(convolutions, "LEAST", 0)
    yield


def _case(case, dtype):
  side, size, stride, dilation, padding, channels, features, groups = case
  window = Window(stride, dilation, padding)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, side, side + 1, channels))
  w = rng.normal(size=(size, size, channels // groups, features))
  shape = jax.eval_shape(
    functools.partial(depthwise.native, window=window),
    jnp.asarray(x, dtype),
    jnp.asarray(w, dtype),
  ).shape
  arrays = (x, w, rng.normal(size=shape))
  return [jnp.asarray(a, dtype) for a in arrays], window


@functools.partial(jax.jit, static_argnums=(0, 4))
def _value_and_grads(conv, x, w, g, window):
  y, pull = jax.vjp(functools.partial(conv, window=window), x, w)
  return y, *pull(g)


def _compare(got, want, tolerance):
  for a, b in zip(got, want, strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    scale = np.abs(b).max()
    assert scale > 0.1
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chosen_forms_equal_the_native_operation(case):
  with jax.enable_x64(True):
    for dtype, tolerance in DTYPES.items():
      arrays, window = _case(case, dtype)
      got = _value_and_grads(convolutions.conv, *arrays, window)
      want = _value_and_grads(depthwise.native, *arrays, window)
      _compare(got, want, tolerance)


def test_the_cases_reach_every_form():
  found = set()
  for case in CASES:
    (x, w, _), window = _case(case, jnp.float32)
    found |= set(
      zip(
        Forms._fields,
        convolutions.chosen(x.shape, w.shape, window),
        strict=True,
      )
    )
  ways = {
    "forward": convolutions.FORWARD,
    "weight": {"", *convolutions.WEIGHT},
    "input": {"", *convolutions.INPUT},
  }
  assert found == {
    (kind, name) for kind, names in ways.items() for name in names
  }


def test_small_convolutions_are_not_worth_compiling_forms(monkeypatch):
  monkeypatch.setattr(convolutions, "WORTH", 32 * 28 * 28 * 9 * 16 * 16)
  x, w, window = (32, 28, 28, 16), (3, 3, 16, 16), Window(1, 1, 1)
  assert convolutions.chosen(x, w, window) == Forms(weight="bands")
  assert not any(convolutions.chosen((31, *x[1:]), w, window))
  # But for weights of 1x1 kernels, which are one product.
  w, window = (1, 1, 16, 16), Window(1, 1, 0)
  assert convolutions.chosen(x, w, window) == Forms(weight="taps")
  assert not any(convolutions.chosen((28, *x[1:]), w, window))


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[8]], ids=str)
def test_bfloat16_accumulates_in_float32(case):
  arrays, window = _case(case, jnp.bfloat16)
  got = _value_and_grads(convolutions.conv, *arrays, window)
  wide = [a.astype(jnp.float32) for a in arrays]
  want = _value_and_grads(depthwise.native, *wide, window)
  for a, b in zip(got, want, strict=True):
    assert a.dtype == jnp.bfloat16
    b = np.asarray(b)
    apart = np.abs(a.astype(np.float32) - b)
    # Half a unit in the last of 8 bits, of each value or of its addends.
    assert (apart <= 2**-8 * np.abs(b) + 1e-5 * np.abs(b).max()).mean() > 0.9
    assert apart.max() < 2**-6 * np.abs(b).max()


@pytest.mark.parametrize("case", [CASES[1], CASES[8], CASES[13]], ids=str)
def test_gradients_of_gradients_and_of_batches(case):
  with jax.enable_x64(True):
    (x, w, _), window = _case(case, jnp.float64)

    def losses(conv):
      def loss(x, w):
        return jnp.tanh(conv(x, w, window)).sum()

      def slope(x, w):
        dx, dw = jax.grad(jax.checkpoint(loss), (0, 1))(x, w)
        return jnp.square(dx).sum() + jnp.square(dw).sum()

      each = jax.vmap(jax.grad(loss, 1), (0, None))
      return jax.grad(slope, (0, 1))(x, w), each(x[:, None], w)

    got, want = (
      jax.tree.leaves(jax.jit(functools.partial(losses, conv))())
      for conv in (convolutions.conv, depthwise.native)
    )
    _compare(got, want, 1e-12)


def _lowered(function, *arrays, platform):
  traced = jax.jit(function).trace(*arrays)
  return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_accelerators_keep_the_native_operations(platform):
  (x, w, _), window = _case(CASES[8], jnp.float32)

  def loss(x, w):
    y = pooling.max_pool(x, pooling.Pool(3, 2, 1))
    return convolutions.conv(y, w, window).sum()

  text = _lowered(jax.grad(loss, (0, 1)), x, w, platform=platform)
  names = ("dot_general", "select_and_scatter")
  found = [f"stablehlo.{name}" in text for name in names]
  assert found == [platform == "cpu", platform != "cpu"]
  assert text.count("stablehlo.convolution") >= (1 if platform == "cpu" else 2)


def test_bands_hold_whole_rows():
  for high, wide in ((56, 56), (28, 28), (14, 14), (13, 40), (1, 999), (23, 1)):
    rows = forms.band_rows(high, wide)
    assert high % rows == 0 and (rows * wide <= 2 * forms.BAND or rows == 1)


POOLS = [
  (pooling.Pool(3, 2, 1), (3, 8, 9, 4)),
  (pooling.Pool(3, 2, 0), (2, 7, 10, 3)),
  (pooling.Pool(2, 2, 0), (2, 5, 4, 3)),
  (pooling.Pool(3, 1, 1), (2, 5, 6, 3)),
  (pooling.Pool(3, 2, 1), (2, 1, 2, 3)),
]


@pytest.mark.parametrize(("pool", "shape"), POOLS, ids=str)
def test_pooling_equals_the_native_operation(pool, shape):
  rng = np.random.default_rng(0)
  # Few values: many windows hold their maximum more than once.
  x = jnp.asarray(rng.integers(-2, 3, shape), jnp.float32)
  assert shape[1] * shape[2] < 8 or (x == 2).sum() > len(x)

  @functools.partial(jax.jit, static_argnums=0)
  def both(function, x):
    y, pull = jax.vjp(functools.partial(function, pool=pool), x)
    g = np.random.default_rng(1).normal(size=y.shape)
    return y, *pull(jnp.asarray(g, x.dtype))

  _compare(both(pooling.max_pool, x), both(pooling.native, x), 1e-6)


def test_pooling_hands_on_what_is_not_a_number():
  x = jnp.full((1, 4, 4, 1), jnp.nan)
  pool = pooling.Pool(3, 2, 1)
  sums = jax.value_and_grad(lambda x: pooling.max_pool(x, pool).sum())
  y, dx = jax.jit(sums)(x)
  assert np.isnan(y) and dx.sum() == 4
