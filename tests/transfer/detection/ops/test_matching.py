"""Matching and sampling, against loops, by hand and against Detectron2."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.transfer.detection.ops import boxes, matching

G = np.random.default_rng(0)
GOLDEN = pathlib.Path(__file__).parents[3] / "golden"


def matched(overlap, valid, low, high, low_quality):
  rows, labels = [], []
  real = np.flatnonzero(valid)
  for column in overlap.T:
    row, best = 0, -1.0
    for i in real:
      if column[i] > best:
        row, best = i, column[i]
    rows.append(row)
    labels.append(0 if best < low else -1 if best < high else 1)
  for i in real if low_quality else ():
    most = max(overlap[i])
    for k in range(overlap.shape[1]):
      if overlap[i, k] == most and most > 0:
        labels[k] = 1
  return rows, labels


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.3, 0.7), (0.5, 0.5)])
def test_match(thresholds, low_quality):
  call = jax.jit(
    functools.partial(
      matching.match,
      low=thresholds[0],
      high=thresholds[1],
      low_quality=low_quality,
    )
  )
  for valid in ([1, 1, 1, 1, 0, 0], [0] * 6, [1] * 6, [0, 0, 1, 0, 1, 0]):
    # Tenths: many ties, among rows, among columns and with the thresholds.
    overlap = G.integers(0, 11, (6, 90)).astype(np.float32) / np.float32(10)
    overlap[overlap > 0.7] *= G.random((overlap > 0.7).sum()) < 0.1
    overlap[3] = 0
    valid = np.array(valid, bool)
    got = call(overlap, valid)
    assert got.row.dtype == got.label.dtype == jnp.int32
    rows, labels = matched(overlap, valid, *np.float32(thresholds), low_quality)
    np.testing.assert_array_equal(got.row, rows)
    np.testing.assert_array_equal(got.label, labels)
    if not valid.any():
      assert not got.label.any() and not got.row.any()


@pytest.mark.parametrize("number", [0, 1, 5])
def test_match_of_boxes(number):
  """Twice the same truth, one without area, one half outside of the image."""
  corner = G.integers(0, 12, (60, 2))
  offered = np.concatenate([corner, corner + G.integers(0, 6, (60, 2))], -1)
  special = [[2, 2, 6, 6], [2, 2, 6, 6], [4, 4, 4, 9], [9, 9, 3, 3]]
  truth = np.float32([*special, [-3, 8, 5, 16]])[:number].reshape(-1, 4)
  offered = np.concatenate([np.float32(offered), truth, truth - 1])
  overlap = jax.jit(boxes.iou)(truth, offered)
  for low_quality in (False, True):
    got = matching.match(
      overlap, np.ones(number, bool), 0.3, 0.7, low_quality=low_quality
    )
    given = np.asarray(overlap), np.ones(number, bool), *np.float32([0.3, 0.7])
    rows, labels = matched(*given, low_quality)
    np.testing.assert_array_equal(got.row, rows)
    np.testing.assert_array_equal(got.label, labels)
    # Of two that are alike the first; what has no area stands for nothing.
    assert set(rows) <= {0, 4} and (number == 0) == (max(labels) < 1)


def test_a_small_overlap_counts_if_it_is_the_best_of_its_truth():
  overlap = jnp.array([[0.1, 0.2, 0.2, 0.0], [0.6, 0.0, 0.8, 0.0]])
  valid = jnp.ones(2, bool)
  got = matching.match(overlap, valid, 0.3, 0.7, low_quality=True)
  assert got.label.tolist() == [-1, 1, 1, 0]
  assert got.row.tolist() == [1, 0, 1, 0]  # the third is the other truth's
  got = matching.match(overlap, valid, 0.3, 0.7, low_quality=False)
  assert got.label.tolist() == [-1, 0, 1, 0]


def test_match_without_room_for_truth():
  got = matching.match(
    jnp.zeros((0, 5)), jnp.zeros(0, bool), 0.3, 0.7, low_quality=True
  )
  assert got.row.tolist() == got.label.tolist() == [0] * 5


picked = jax.jit(matching.picked, static_argnums=(2, 3))
chosen = jax.jit(matching.chosen, static_argnums=(2, 3))
LABEL = jnp.array([0, 1, 1, -1, 0, 1, 1, 0, -1, 0, 0, 0])


def test_the_first_ones():
  got = picked(None, LABEL, 6, 0.5)
  assert got.row.tolist() == [1, 2, 5, 0, 4, 7]
  assert got.positive.tolist() == [True] * 3 + [False] * 3
  assert got.valid.all()
  got = chosen(None, LABEL, 6, 0.5)
  assert got.tolist() == [0, 1, 1, -1, 0, 1, -1, 0, -1, -1, -1, -1]


def test_background_fills_up_and_slots_stay_empty():
  got = picked(None, LABEL, 16, 0.5)  # four objects, not eight
  assert got.row.tolist()[:10] == [1, 2, 5, 6, 0, 4, 7, 9, 10, 11]
  assert got.row[10:].tolist() == [0] * 6
  assert got.positive.tolist() == [True] * 4 + [False] * 12
  assert got.valid.tolist() == [True] * 10 + [False] * 6
  want = jnp.where(LABEL < 0, -1, LABEL)
  np.testing.assert_array_equal(chosen(None, LABEL, 16, 0.5), want)
  got = picked(None, jnp.full(5, -1), 4, 0.5)
  assert not got.valid.any() and not got.row.any()
  got = picked(None, LABEL, 5, 0.0)
  assert got.row.tolist() == [0, 4, 7, 9, 10] and not got.positive.any()


def sampled(label, count, fraction):
  """Rows, and how many of them are objects."""
  objects = np.flatnonzero(label == 1)[: int(count * fraction)]
  others = np.flatnonzero(label == 0)[: count - len(objects)]
  return [*objects, *others], len(objects)


@pytest.mark.parametrize("allowed", [(-1, 0, 1), (-1, 0), (0, 1), (1,), (-1,)])
@pytest.mark.parametrize("count,fraction", [(16, 0.25), (80, 0.5), (7, 1.0)])
def test_samples_are_those_of_a_loop(allowed, count, fraction):
  """Enough of both kinds, too few, or none: as without any truth."""
  label = G.choice(allowed, 50).astype(np.int32)
  rows, objects = sampled(label, count, fraction)
  got = picked(None, label, count, fraction)
  assert got.row.tolist() == rows + [0] * (count - len(rows))
  assert got.positive.sum() == objects and got.positive[:objects].all()
  assert got.valid.sum() == len(rows) and got.valid[: len(rows)].all()
  want = np.full(50, -1)
  want[rows] = label[rows]
  np.testing.assert_array_equal(chosen(None, label, count, fraction), want)
  drawn = picked(jax.random.key(3), label, count, fraction)
  np.testing.assert_array_equal(drawn.positive, got.positive)
  np.testing.assert_array_equal(drawn.valid, got.valid)


@pytest.mark.parametrize("count,objects", [(6, 3), (14, 4)])
def test_every_one_is_drawn_equally_often(count, objects):
  label = jnp.concatenate([LABEL, LABEL * 0 - 1])
  draws = 4000
  keys = jax.random.split(jax.random.key(0), draws)
  some = jax.jit(jax.vmap(lambda k: matching.chosen(k, label, count, 0.5)))
  got = np.asarray(some(keys))
  others = min(count - objects, 6)
  assert ((got == 1).sum(1) == objects).all()
  assert ((got == 0).sum(1) == others).all()
  assert (got[:, label < 0] == -1).all()
  for value, number, of in ((1, objects, 4), (0, others, 6)):
    often = (got[:, label == value] == value).mean(0)
    np.testing.assert_allclose(often, number / of, atol=0.04)
  # Pairs too: members are drawn without regard to each other.
  if objects == 3:
    pair = ((got[:, 1] == 1) & (got[:, 2] == 1)).mean()
    np.testing.assert_allclose(pair, 0.5, atol=0.04)


def test_picked_is_what_is_chosen():
  label = jnp.asarray(G.integers(-1, 2, 200))
  for seed in range(3):
    key = jax.random.key(seed)
    got = picked(key, label, 64, 0.25)
    want = chosen(key, label, 64, 0.25)
    assert len(set(got.row.tolist())) == 64
    np.testing.assert_array_equal(label[got.row], got.positive)
    np.testing.assert_array_equal(want[got.row], got.positive)
    assert (want >= 0).sum() == 64 and got.positive.sum() == 16


def test_vmap_and_no_transfer():
  def both(key, overlap, valid):
    found = matching.match(overlap, valid, 0.3, 0.7, low_quality=True)
    return found, matching.picked(key, found.label, 16, 0.25)

  given = jax.device_put(
    (
      jax.random.split(jax.random.key(1), 3),
      G.random((3, 4, 50)).astype(np.float32),
      np.arange(4) < np.arange(3)[:, None],
    )
  )
  every, one = jax.jit(jax.vmap(both)), jax.jit(both)
  every(*given)
  with jax.transfer_guard("disallow"):
    got = every(*given)
  for i in range(3):
    want = one(*(x[i] for x in given))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_array_equal(a[i], b)


@pytest.mark.parametrize("name", ["det_r18_fpn", "det_r50_c4"])
def test_proposals_of_detectron2(name):
  """Matching, then the first 32 of them, at most 8 of objects."""
  with np.load(GOLDEN / f"{name}.npz") as golden:
    stored = {
      key: [golden[f"{key}_{i}"] for i in range(2)]
      for key in (
        "gt_boxes",
        "gt_classes",
        "train_proposals",
        "roi_boxes",
        "roi_classes",
      )
    }

  @jax.jit
  def compared(truth, offered):
    overlap, valid = boxes.iou(truth, offered), jnp.ones(len(truth), bool)
    return matching.match(overlap, valid, 0.5, 0.5, low_quality=False)

  for i in range(2):
    truth, classes = stored["gt_boxes"][i], stored["gt_classes"][i]
    offered = np.concatenate([stored["train_proposals"][i], truth])
    found = compared(truth, offered)
    got = picked(None, found.label, 32, 0.25)
    np.testing.assert_array_equal(offered[got.row], stored["roi_boxes"][i])
    named = np.where(got.positive, classes[found.row[got.row]], 5)
    np.testing.assert_array_equal(named, stored["roi_classes"][i])
    assert got.valid.all() and got.positive.any()
