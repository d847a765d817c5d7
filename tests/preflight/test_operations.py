"""The independent count of multiply-adds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.preflight import operations


def traced(function, *shapes):
  specs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
  return jax.make_jaxpr(function)(*specs).jaxpr


def conv(image, kernel, **how):
  how = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), **how}
  return jax.lax.conv_general_dilated(
    image, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **how
  )


@pytest.mark.parametrize(
  ("image", "kernel", "how"),
  [
    ((2, 5, 7, 3), (3, 3, 3, 4), {}),
    ((2, 9, 7, 3), (3, 3, 3, 4), {"window_strides": (2, 2)}),
    ((1, 9, 9, 4), (3, 3, 1, 8), {"feature_group_count": 4}),
    ((1, 9, 9, 2), (3, 3, 2, 2), {"rhs_dilation": (2, 2)}),
    ((1, 4, 4, 2), (3, 3, 2, 2), {"lhs_dilation": (2, 2)}),
  ],
)
def test_useful_products_are_those_of_ones(image, kernel, how):
  """Each product of two ones adds one to the sum of the output."""
  run = lambda x, w: conv(x, w, **how)  # noqa: E731
  total = float(run(jnp.ones(image), jnp.ones(kernel)).sum())
  useful = operations.count(traced(run, image, kernel))
  assert useful == 2 * total
  assert operations.count(traced(run, image, kernel), padded=True) > useful


def test_gradients_count_as_the_compiler_does():
  """Also with holes in the image and groups of the batch."""

  def loss(image, kernel):
    return conv(image, kernel, window_strides=(2, 2)).sum() ** 2

  shapes = (4, 16, 16, 32), (3, 3, 32, 64)
  both = jax.grad(loss, (0, 1))
  specs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
  compilers = jax.jit(both).lower(*specs).cost_analysis()["flops"]
  found = operations.count(traced(both, *shapes))
  assert found == pytest.approx(compilers, rel=0.01) and found > 1e6


def test_loops_and_functions_with_gradients_of_their_own():
  @jax.custom_vjp
  def product(x, w):
    return x @ w

  product.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g)
  )

  def run(x, w):
    def turn(y, _):
      return jax.jit(product)(y, w), None

    return jax.lax.scan(turn, x, None, length=6)[0].sum()

  once = 2 * 5 * 7 * 7
  assert operations.count(traced(run, (5, 7), (7, 7))) == 6 * once
  assert operations.count(traced(run, (5, 7), (7, 7)), turns=False) == once
  gradient = jax.grad(run, (0, 1))
  assert operations.count(traced(gradient, (5, 7), (7, 7))) == 6 * 3 * once


def test_of_branches_the_dearest_counts():
  def run(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: (x @ w) @ w)

  assert operations.count(traced(run, (5, 7), (7, 7))) == 2 * 2 * 5 * 7 * 7


def test_of_platforms_the_plain_operation_counts():
  def run(x, w):
    return jax.lax.platform_dependent(
      x, w, cpu=lambda x, w: (x @ w) @ w, default=lambda x, w: x @ w
    )

  assert operations.count(traced(run, (5, 7), (7, 7))) == 2 * 5 * 7 * 7


def test_elements_count_on_request():
  def run(x, y):
    return jnp.sum(jnp.maximum(2 * (x @ y), 0)) / 3

  shapes = (5, 7), (7, 7)
  products = 2 * 5 * 7 * 7
  assert operations.count(traced(run, *shapes)) == products
  found = operations.count(traced(run, *shapes), elements=True)
  assert found == products + 3 * 5 * 7 + 1  # scaled, compared, summed; divided


def test_what_no_output_depends_on_is_dropped():
  def run(x, w):
    jax.jit(lambda y: y @ w)(x)
    again = jax.lax.scan(lambda c, _: (c @ w, c @ w @ w), x, None, length=3)
    return again[0]

  jaxpr = traced(run, (4, 4), (4, 4))
  one = 2 * 4**3
  assert operations.count(jaxpr) == 10 * one
  assert operations.count(operations.needed(jaxpr)) == 3 * one
