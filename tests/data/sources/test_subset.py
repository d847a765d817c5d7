import numpy as np
import pytest

from kd_jax.data.sources import subset

LABELS = np.array([2, 0, 1, 0, 2, 0, 1, 2, 1, 0])


def test_all_is_kept_unless_asked():
  kept = subset.draw(5)
  np.testing.assert_array_equal(kept, np.arange(5))
  assert kept.dtype == np.int64


def test_so_many_of_every_class():
  kept = subset.draw(10, labels=LABELS, per_class=2, seed=3)
  # The draw by hand: class by class, in the order of the records.
  rng = np.random.RandomState(3)
  expected = []
  for label in range(3):
    group = [i for i in range(10) if LABELS[i] == label]
    expected += [group[i] for i in rng.permutation(len(group))[:2]]
  assert kept.tolist() == sorted(expected)
  assert np.bincount(LABELS[kept]).tolist() == [2, 2, 2]
  other = subset.draw(10, labels=LABELS, per_class=2, seed=4)
  assert other.tolist() != kept.tolist()


@pytest.mark.parametrize(
  "percent, kept", [(10.0, 100), (0.1, 1), (33.33, 333), (100.0, 1000)]
)
def test_percent_of_all(percent, kept):
  found = subset.draw(1000, percent=percent, seed=1)
  assert len(found) == kept
  assert (np.diff(found) > 0).all()
  again = subset.draw(1000, labels=np.full(1000, -1), percent=percent, seed=1)
  np.testing.assert_array_equal(found, again)


def test_percent_draws_by_the_seed_from_everywhere():
  kept = subset.draw(1000, percent=10, seed=0)
  assert 400 < kept.mean() < 600
  assert set(kept) != set(subset.draw(1000, percent=10, seed=1))
  # Half holds the tenth: more data is a superset, as learning curves want.
  assert set(kept) <= set(subset.draw(1000, percent=50, seed=0))


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"percent": 0.0}, r"percent=0.0; it must be above 0 and at most 100"),
    ({"percent": 101}, "percent=101; .* at most 100"),
    ({"percent": float("nan")}, "percent=nan"),
    ({"percent": 1}, "percent=1 of 10 records is none; raise percent"),
    ({"per_class": -1}, "per_class=-1; it must be at least 0"),
    ({"per_class": 1, "percent": 5}, "per_class=1 and percent=5 both say"),
    ({"per_class": 1}, "per_class=1 needs classes, .* percent for a share"),
    ({"per_class": 1, "labels": LABELS - 1}, "or some have none"),
    (
      {"per_class": 4, "labels": LABELS},
      "per_class=4 is more than 2 classes have, such as 1 with 3 records; "
      "lower it to 3",
    ),
    (
      {"per_class": 4, "labels": LABELS, "class_names": "abc"},
      "such as 'b' with 3 records",
    ),
  ],
)
def test_errors(fields, message):
  with pytest.raises(ValueError, match=message):
    subset.draw(10, **fields)
