"""Which images runs train on, and which they are judged by."""

import numpy as np
import pytest

from kd_jax.data.sources import digits, scenes
from kd_jax.transfer import draws

SOURCE = digits.Source("train[:200]")
LABELS = np.asarray(SOURCE.all_labels())


@pytest.fixture(scope="module")
def parts():
  return draws.parts(SOURCE, LABELS, 0.3)


def ids(source):
  return {source[i]["id"] for i in range(len(source))}


def test_no_image_that_chooses_is_one_that_a_search_learns_from(parts):
  held = ids(parts.held_out())
  assert len(held) == len(parts.held) == 60
  for shots in (0, 3):
    for seed in range(4):
      assert not held & ids(parts.searched(shots, seed))
  assert held | ids(parts.searched(0, 0)) == set(range(200))


def test_runs_that_count_take_all_images_or_a_draw_of_the_others(parts):
  assert ids(parts.trained(0, 0)) == set(range(200))
  assert not ids(parts.held_out()) & ids(parts.trained(5, 1))


def test_every_class_is_held_out_and_drawn_alike(parts):
  held = np.bincount(parts.held_out().all_labels())
  assert held.tolist() == [6] * 10
  drawn = parts.trained(4, 0)
  assert np.bincount(drawn.all_labels()).tolist() == [4] * 10
  assert drawn.num_classes == 10


def test_seeds_draw_other_images_and_the_same_each_time(parts):
  first, second = (ids(parts.trained(4, seed)) for seed in (0, 1))
  assert first != second and first == ids(parts.trained(4, 0))
  again = draws.parts(SOURCE, LABELS, 0.3)
  np.testing.assert_array_equal(again.held, parts.held)


HELD = [3, 10, 11, 14, 18, 19, 21, 22]
DRAWN = [5, 27, 31, 44, 59, 142, 150, 163, 196, 198]


def test_the_draws_are_those_of_every_machine(parts):
  """Written down once: NumPy promises that these streams never change."""
  assert parts.held[:8].tolist() == HELD
  assert np.asarray(parts.trained(1, 7).rows).tolist() == DRAWN


def test_a_class_keeps_at_least_one_image_to_choose_by():
  found = draws.parts(SOURCE, LABELS, 0.01)
  assert np.bincount(LABELS[found.held]).tolist() == [1] * 10


def test_without_a_search_nothing_is_held_out():
  found = draws.parts(SOURCE, LABELS, 0.0)
  assert len(found.held) == 0 and len(found.pool) == 200


def test_masks_are_drawn_in_all():
  source = scenes.Source("train", length=30)
  found = draws.parts(source, None, 0.2)
  assert len(found.held) == 6
  drawn = found.trained(10, 3)
  assert len(drawn) == 10 and drawn.mask_names == source.mask_names
  assert ids(drawn) <= set(found.pool.tolist())
  assert ids(drawn) != ids(found.trained(10, 4))
  with pytest.raises(ValueError, match="shots=25 is more than the 24 training"):
    found.trained(25, 0)


def test_classes_without_images_are_named():
  labels = np.where(LABELS == 3, 4, LABELS)
  with pytest.raises(ValueError, match=r"1 of 10 classes.*\['3'\]"):
    draws.parts(SOURCE, labels, 0.0)


def test_too_few_to_hold_one_out():
  keep = np.flatnonzero((LABELS != 5) | (np.arange(200) == 5))
  with pytest.raises(ValueError, match="class '5' has 1. Lower --config.trans"):
    draws.parts(SOURCE, LABELS[keep], 0.3)
  with pytest.raises(ValueError, match="leaves no training image: the data"):
    draws.parts(scenes.Source("train", length=2), None, 0.9)


def test_more_shots_than_a_class_has(parts):
  with pytest.raises(ValueError, match="per_class=15 is more than 10 classes"):
    parts.searched(15, 0)
