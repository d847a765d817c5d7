"""Boxes and levels, against plain loops and identities."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax.transfer.detection.ops import boxes, levels

G = np.random.default_rng(0)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
DEGENERATE = np.array(
  [
    [0, 0, 0, 0],
    [3, 3, 3, 9],
    [3, 3, 9, 3],
    [9, 3, 3, 9],
    [9, 9, 3, 3],
    [-1, -1, -1, -1],
  ],
  np.float32,
)


def some(number, spread=20.0):
  low = G.uniform(0, 2 * spread, (number, 2))
  high = low + G.uniform(1, spread, (number, 2))
  return np.concatenate([low, high], -1).astype(np.float32)


def one_iou(a, b):
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  if width <= 0 or height <= 0:
    return 0.0
  areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
  return width * height / (sum(areas) - width * height)


def test_iou_and_area():
  a = np.concatenate([some(20), DEGENERATE, np.round(some(9))])
  b = np.concatenate([a[5:], some(7)])
  want = [[one_iou(x, y) for y in b] for x in a.astype(np.float64)]
  got = boxes.iou(jnp.asarray(a), jnp.asarray(b))
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  assert (np.asarray(want) > 0.5).sum() > 20
  want = [
    max(x[2] - x[0], 0) * max(x[3] - x[1], 0) for x in a.astype(np.float64)
  ]
  np.testing.assert_allclose(boxes.area(jnp.asarray(a)), want, rtol=1e-5)


def test_degenerate_boxes_overlap_nothing_and_have_finite_gradients():
  a = jnp.asarray(DEGENERATE)
  b = jnp.concatenate([a, jnp.array([[-20.0, -20, 50, 50]])])

  @jax.jit
  def everything(a, b):
    shared, back = jax.vjp(boxes.iou, a, b)
    coded, back_coded = jax.vjp(
      lambda x, y: boxes.encode(x, y, WEIGHTS), a, b[::-1][1:]
    )
    far = boxes.decode(jnp.full_like(a, 1e4), a, WEIGHTS)
    ones = jnp.ones_like(coded)
    return shared, (back(shared + 1), coded, back_coded(ones), far)

  shared, rest = everything(a, b)
  assert not shared.any()
  for x in jax.tree.leaves(rest):
    assert np.isfinite(x).all()


def test_coding_by_hand():
  source = jnp.array([10.0, 20, 30, 60])  # centre (20, 40), sides 20 and 40
  target = jnp.array([25.0, 10, 35, 90])  # centre (30, 50), sides 10 and 80
  want = [10 * 0.5, 10 * 0.25, 5 * math.log(0.5), 5 * math.log(2)]
  got = boxes.encode(source, target, WEIGHTS)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(
    boxes.decode(got, source, WEIGHTS), target, rtol=1e-6
  )


def shown(box):
  """(centre, sides) in float64."""
  low, high = np.float64(box[:2]), np.float64(box[2:])
  return (low + high) / 2, high - low


def encoded(source, target):
  """Equation 2 of Faster R-CNN; sides of less than a millionth count as it."""
  (centre, sides), (goal, wanted) = shown(source), shown(target)
  sides, wanted = np.maximum(sides, 1e-6), np.maximum(wanted, 1e-6)
  return [*((goal - centre) / sides), *np.log(wanted / sides)]


def decoded(deltas, source):
  """Its inverse; sides grow to 1000 / 16 of theirs at most."""
  centre, sides = shown(source)
  deltas = np.float64(deltas)
  centre = centre + deltas[:2] * sides
  half = np.minimum(np.exp(deltas[2:]), 1000 / 16) * sides / 2
  return [*(centre - half), *(centre + half)]


def test_coding_is_that_of_a_loop():
  """Random boxes, empty and reversed ones, and some at or over the border."""
  border = np.float32([[0, 0, 5, 64], [-9, 50, 3, 70], [60, 0, 64, 4]])
  every = np.concatenate([some(20), DEGENERATE, border])
  source, target = every, every[::-1].copy()
  weights = np.array(WEIGHTS)
  got = jax.jit(lambda a, b: boxes.encode(a, b, WEIGHTS))(source, target)
  want = [encoded(*pair) for pair in zip(source, target, strict=True)]
  np.testing.assert_allclose(got, want * weights, rtol=2e-4, atol=2e-4)
  deltas = G.normal(0, 2, (len(every), 4)).astype(np.float32)
  got = jax.jit(lambda d, b: boxes.decode(d * weights, b, WEIGHTS))(
    deltas, source
  )
  want = [decoded(*pair) for pair in zip(deltas, source, strict=True)]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_coding_is_inverted_for_any_leading_axes():
  source, target = (some(24).reshape(2, 3, 4, 4) for _ in "ab")
  deltas = boxes.encode(source, target, (1.0, 2.0, 3.0, 4.0))
  assert deltas.shape == source.shape
  got = boxes.decode(deltas, source, (1.0, 2.0, 3.0, 4.0))
  np.testing.assert_allclose(got, target, atol=1e-4)
  # Deltas of many classes share one source.
  got = boxes.decode(deltas, source[..., :1, :], WEIGHTS)
  again = np.broadcast_to(source[..., :1, :], source.shape)
  np.testing.assert_array_equal(got, boxes.decode(deltas, again, WEIGHTS))


def test_growth_is_limited():
  deltas = jnp.array([0.0, 0.0, 1e9, math.log(62)])
  got = boxes.decode(deltas, jnp.array([0.0, 0, 2, 2]), (1.0,) * 4)
  np.testing.assert_allclose(got[2] - got[0], 2 * 62.5, rtol=1e-6)
  np.testing.assert_allclose(got[3] - got[1], 2 * 62, rtol=1e-5)


@pytest.mark.parametrize("function", ["encode", "decode", "iou"])
def test_gradients(function):
  a, b = (jnp.asarray(some(4, 2.0)) for _ in "ab")
  if function == "iou":
    call, given = boxes.iou, (a, b)
  elif function == "encode":
    call, given = (lambda x, y: boxes.encode(x, y, WEIGHTS)), (a, b)
  else:
    call = lambda x, y: boxes.decode(x, y, WEIGHTS)  # noqa: E731
    given = (boxes.encode(a, b, WEIGHTS), a)
  check_grads(jax.jit(call), given, 1, atol=5e-2, rtol=5e-2, eps=1e-3)


def test_clip_and_nonempty():
  x = jnp.array([[-5.0, -6, 12, 7], [3, 4, 5, 6], [30, 1, 40, 9]])
  got = boxes.clip(x, jnp.array([8, 11]))
  np.testing.assert_array_equal(
    got, [[0, 0, 11, 7], [3, 4, 5, 6], [11, 1, 11, 8]]
  )
  assert boxes.nonempty(got).tolist() == [True, True, False]
  assert boxes.nonempty(got, 2.0).tolist() == [True, False, False]
  assert not boxes.nonempty(jnp.asarray(DEGENERATE)).any()
  ordered = boxes.clip(jnp.asarray(some(50) - 20), jnp.array([9.5, 7.25]))
  assert (ordered[:, 2:] >= ordered[:, :2]).all()
  assert ordered.max(0).tolist() == [7.25, 9.5, 7.25, 9.5]


def test_levels():
  sides = np.array([0, 10, 55.9, 56, 111.9, 112, 223, 224, 447, 448, 5000])
  x = np.stack([0 * sides, 0 * sides, sides * 2, sides / 2], -1)
  got = levels.of(jnp.asarray(x, jnp.float32), 2, 5)
  assert got.tolist() == [2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5]
  assert got.dtype == jnp.int32
  got = levels.of(jnp.asarray(x, jnp.float32), 3, 5, size=56, level=3)
  assert got.tolist() == [3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5]
  x = np.concatenate([some(300, 300.0), DEGENERATE]).astype(np.float64)
  sides = np.sqrt(np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), -1))
  want = np.clip(np.floor(4 + np.log2(sides / 224 + 1e-8)), 2, 5)
  np.testing.assert_array_equal(levels.of(jnp.float32(x), 2, 5), want)
  assert len(np.unique(want)) > 2
