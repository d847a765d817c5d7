"""RoIAlign, against a loop over samples."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax.transfer.detection.ops import roi_align

G = np.random.default_rng(0)


def sample(x, at):
  """Bilinear, 0 beyond [-1, length]."""
  limits = x.shape[:2]
  if any(not -1 <= a <= n for a, n in zip(at, limits, strict=True)):
    return np.zeros(x.shape[2])
  at = [min(max(a, 0), n - 1) for a, n in zip(at, limits, strict=True)]
  low = [int(a) for a in at]
  high = [min(a + 1, n - 1) for a, n in zip(low, limits, strict=True)]
  y, z = at[0] - low[0], at[1] - low[1]
  upper = (1 - z) * x[low[0], low[1]] + z * x[low[0], high[1]]
  lower = (1 - z) * x[high[0], low[1]] + z * x[high[0], high[1]]
  return (1 - y) * upper + y * lower


def pooled(x, boxes, scale, out):
  """Box by box, bin by bin, sample by sample, in float64."""
  result = np.zeros((len(boxes), out, out, x.shape[2]))
  for r, box in enumerate(boxes.astype(np.float64)):
    x0, y0, x1, y1 = box * scale - 0.5
    height, width = (y1 - y0) / out, (x1 - x0) / out
    rows, columns = math.ceil(height), math.ceil(width)
    for p, q in np.ndindex(out, out):
      for i in range(rows):
        for j in range(columns):
          at = (
            y0 + (p + (i + 0.5) / rows) * height,
            x0 + (q + (j + 0.5) / columns) * width,
          )
          result[r, p, q] += sample(x, at) / (rows * columns)
  return result


def some(number, width, height):
  """Inside, at the border, half and far outside, large, small, reversed."""
  centre = G.uniform(-0.3, 1.3, (number, 2)) * [width, height]
  sides = G.exponential(0.5, (number, 2)) - 0.1
  sides *= [width, height]
  boxes = np.concatenate([centre - sides / 2, centre + sides / 2], -1)
  special = [
    [0, 0, width, height],
    [0, 0, 0, 0],
    [3, 3, 3, 20],
    [20, 3, 3, 20],
    [20, 20, 3, 3],
    [-width, -height, 3 * width, 3 * height],
    [5, 5, 5.001, 5.01],
    [9 * width, 0, 10 * width, height],
  ]
  return np.concatenate([boxes, special]).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(2, 3))
def pool(x, boxes, scale, out):
  return roi_align.pool(x, boxes, scale, out)


@pytest.mark.parametrize(
  "shape,scale,out",
  [((9, 13, 3), 0.25, 7), ((17, 6, 2), 0.5, 3), ((1, 1, 2), 0.125, 2)],
)
def test_is_the_loop(shape, scale, out):
  x = G.normal(size=shape).astype(np.float32)
  boxes = some(30, shape[1] / scale, shape[0] / scale)
  want = pooled(x, boxes, scale, out)
  got = np.asarray(pool(x, boxes, scale, out))
  np.testing.assert_allclose(got, want, atol=2e-5)
  empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
  assert empty.sum() > 3 and not got[empty].any()
  assert np.abs(got).max((1, 2, 3)).astype(bool).sum() > 12


@pytest.mark.parametrize("out", [3, 7, 14])
def test_boxes_of_whole_bins(out):
  """Quotients must not be rounded up, and samples end at the border."""
  x = G.normal(size=(12, 15, 2)).astype(np.float32)
  low = G.integers(-6, 12, (20, 2))
  high = low + out * G.integers(1, 4, (20, 2))
  boxes = 4 * np.concatenate([low, high], -1).astype(np.float32)
  got = pool(x, boxes, 0.25, out)
  np.testing.assert_allclose(got, pooled(x, boxes, 0.25, out), atol=2e-5)


def test_a_map_of_its_own_places():
  """Far from the border a linear map gives the bins' centres."""
  y, z = np.meshgrid(np.arange(40.0), np.arange(50.0), indexing="ij")
  box = np.float32([[33.3, 21.7, 150.1, 122.9]])
  got = pool(np.stack([y, z], -1).astype(np.float32), box, 0.25, 5)[0]
  for axis, (start, stop) in enumerate(((21.7, 122.9), (33.3, 150.1))):
    centres = start + (stop - start) * (np.arange(5) + 0.5) / 5
    along = got[:, 0, 0] if axis == 0 else got[0, :, 1]
    np.testing.assert_allclose(along, centres / 4 - 0.5, atol=1e-4)


def test_gradients():
  boxes = jnp.asarray(some(5, 24, 20))
  x = jnp.asarray(G.normal(size=(5, 6, 2)), jnp.float32)
  call = lambda x: pool(x, boxes, 0.25, 3)  # noqa: E731
  check_grads(call, (x,), 1, ["rev"], atol=1e-2, rtol=1e-2)
  level, scales = np.arange(len(boxes)) % 2, (0.25, 0.125)
  maps = x, jnp.asarray(G.normal(size=(3, 3, 2)), jnp.float32)
  both = lambda *x: roi_align.pool_levels(x, scales, boxes, level, 3)  # noqa: E731
  check_grads(jax.jit(both), maps, 1, ["rev"], atol=1e-2, rtol=1e-2)
  grad = jax.grad(lambda b: pool(x, b, 0.25, 3).sum())(boxes)
  assert not grad.any()


def test_many_boxes_are_done_in_parts(monkeypatch):
  x = jnp.asarray(G.normal(size=(9, 13, 3)), jnp.float32)
  boxes = jnp.asarray(some(30, 52, 36))
  target = jnp.asarray(G.normal(size=(38, 4, 4, 3)), jnp.float32)

  def traced():
    def both(x):
      y, back = jax.vjp(lambda x: roi_align.pool(x, boxes, 0.25, 4), x)
      return y, back(target)

    return jax.jit(both).trace(x)

  whole = traced().lower().compile()(x)
  monkeypatch.setattr(roi_align, "MOST_BETWEEN", 2**10)
  in_parts = traced()
  assert "scan" in str(in_parts.jaxpr)
  parts = in_parts.lower().compile()(x)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_levels():
  x = [G.normal(size=(n, 2 * n, 2)).astype(np.float32) for n in (8, 4)]
  boxes = some(12, 64, 32)
  level = np.arange(len(boxes)) % 3 - 1
  scales = (0.25, 0.125)
  call = jax.jit(
    lambda *given: roi_align.pool_levels(given, scales, boxes, level, 4)
  )
  got = call(*x)
  assert got.dtype == jnp.float32
  for i, (one, scale) in enumerate(zip(x, scales, strict=True)):
    want = pooled(one, boxes[level == i], scale, 4)
    np.testing.assert_allclose(got[level == i], want, atol=2e-5)
  assert not got[level == -1].any()


def test_half_precision():
  x = jnp.asarray(G.normal(size=(9, 13, 3)), jnp.bfloat16)
  boxes = some(30, 52, 36)
  got = pool(x, boxes, 0.25, 3)
  assert got.dtype == jnp.bfloat16
  want = pool(x.astype(jnp.float32), boxes, 0.25, 3).astype(jnp.bfloat16)
  np.testing.assert_allclose(
    got.astype(jnp.float32), want.astype(jnp.float32), rtol=2**-7, atol=1e-6
  )


def test_vmap_and_no_transfer():
  x = G.normal(size=(2, 9, 13, 3)).astype(np.float32)
  boxes = np.stack([some(8, 52, 36) for _ in range(2)])
  every = jax.jit(jax.vmap(lambda x, b: roi_align.pool(x, b, 0.25, 3)))
  given = jax.device_put((x, boxes))
  every(*given)
  with jax.transfer_guard("disallow"):
    got = every(*given)
  for i in range(2):
    np.testing.assert_allclose(got[i], pool(x[i], boxes[i], 0.25, 3), atol=1e-5)
