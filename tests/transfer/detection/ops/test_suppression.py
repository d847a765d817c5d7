"""Suppression, against the greedy loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.transfer.detection.ops import suppression

G = np.random.default_rng(0)


def greedy(boxes, valid, threshold, groups):
  """Row by row, in float32 as the code does."""
  kept = []
  for i in np.flatnonzero(valid):
    if not any(
      groups[i] == groups[j] and overlap(boxes[i], boxes[j]) > threshold
      for j in kept
    ):
      kept.append(i)
  return np.isin(np.arange(len(boxes)), kept)


def overlap(a, b):
  sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
  if (sides <= 0).any():
    return np.float32(0)
  shared = sides[0] * sides[1]
  areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
  return shared / (areas[0] + areas[1] - shared)


def some(number, whole):
  """Many overlap; whole pixels make equal and half-overlapping boxes."""
  low = G.uniform(-10, 60, (number, 2))
  high = low + G.uniform(-2, 40, (number, 2))
  boxes = np.concatenate([low, high], -1).astype(np.float32)
  return np.round(boxes / 8) * 8 if whole else boxes


@functools.partial(jax.jit, static_argnums=2)
def keep(boxes, valid, threshold, groups=None):
  return suppression.keep(boxes, valid, threshold, groups)


@pytest.mark.parametrize("number", [1, 256, 700])
@pytest.mark.parametrize("whole", [False, True])
def test_is_the_greedy_answer(number, whole):
  boxes = some(number, whole)
  valid = G.random(number) < 0.9
  groups = G.integers(0, 3, number)
  got = keep(boxes, valid, 0.5, groups)
  want = greedy(boxes, valid, 0.5, groups)
  np.testing.assert_array_equal(got, want)
  got = keep(boxes, valid, 0.5)
  want_one = greedy(boxes, valid, 0.5, 0 * groups)
  np.testing.assert_array_equal(got, want_one)
  if number > 1:
    assert 0 < want_one.sum() < want.sum() < valid.sum()


def test_of_equal_boxes_the_first_valid_one_stays():
  boxes = np.tile(np.float32([2, 3, 12, 13]), (600, 1))
  valid = np.arange(600) >= 300
  got = np.flatnonzero(keep(boxes, valid, 0.7))
  assert got.tolist() == [300]
  assert not keep(boxes, np.zeros(600, bool), 0.7).any()


def test_long_chains():
  """Every box overlaps the next: every second one stays."""
  left = np.arange(600, dtype=np.float32)
  boxes = np.stack([left, 0 * left, left + 2, 0 * left + 5], -1)
  got = keep(boxes, np.ones(600, bool), 0.3)
  np.testing.assert_array_equal(got, np.arange(600) % 2 == 0)


def test_exactly_the_threshold_stays():
  boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 2.001]])
  assert keep(boxes, np.ones(3, bool), 0.5).tolist() == [True, True, False]


def test_boxes_without_area_neither_go_nor_suppress():
  boxes = np.float32([[5, 5, 5, 9], [5, 5, 5, 9], [9, 9, 1, 1], [0, 0, 9, 9]])
  assert keep(boxes, np.ones(4, bool), 0.0).all()


def test_vmap_and_no_transfer():
  boxes = np.stack([some(300, False) for _ in range(3)])
  valid = G.random((3, 300)) < 0.8
  groups = G.integers(0, 2, (3, 300))
  one = functools.partial(suppression.keep, threshold=0.4)
  every = jax.jit(jax.vmap(lambda b, v, g: one(b, v, groups=g)))
  given = jax.device_put((boxes, valid, groups))
  every(*given)
  with jax.transfer_guard("disallow"):
    got = every(*given)
  want = [greedy(b, v, 0.4, g) for b, v, g in zip(*map(np.asarray, given))]  # noqa: B905
  np.testing.assert_array_equal(got, want)


def test_memory_does_not_grow_with_the_square():
  shapes = [((12000, 4), jnp.float32), ((12000,), bool)]
  specs = [jax.ShapeDtypeStruct(*x) for x in shapes]
  compiled = keep.lower(*specs[:2], 0.7).compile()
  needed = compiled.memory_analysis().temp_size_in_bytes
  assert needed < 12000 * 12000 / 4
