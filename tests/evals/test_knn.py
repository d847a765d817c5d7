from __future__ import annotations

import numpy as np
import pytest
from sklearn import datasets, neighbors

from kd_jax.evals import features, knn


@pytest.fixture(scope="module")
def digits():
  """Real images; labels are not 0..9 so that classes must be looked up."""
  x, y = datasets.load_digits(return_X_y=True)
  x, y = x.astype(np.float32), 3 * y + 5
  train = features.Features(x[:1000], y[:1000])
  return train, features.Features(x[1000:], y[1000:])


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (7, 1.0)])
def test_agrees_with_scikit_learn(digits, k, temperature):
  train, test = digits
  model = neighbors.KNeighborsClassifier(
    n_neighbors=k,
    metric="cosine",
    weights=lambda distance: np.exp((1 - distance) / temperature),
  )
  expected = model.fit(*train).score(*test)
  found = knn.evaluate(train, test, k=k, temperature=temperature)
  assert found == {"knn": pytest.approx(expected, abs=1e-3)}
  assert found["knn"] > 0.9


def test_votes_are_weighted_by_similarity():
  # Two far votes for class 1 against one near vote for class 0.
  train = features.Features(
    np.array([[1, 0], [0, 1], [0, 1]], np.float32), np.array([0, 1, 1])
  )
  test = features.Features(np.array([[1, 0.1]], np.float32), np.array([0]))
  assert knn.evaluate(train, test, k=3) == {"knn": 1.0}
  assert knn.evaluate(train, test, k=3, temperature=10.0) == {"knn": 0.0}


def test_k_is_capped_at_the_training_rows(digits):
  train, test = digits
  few = features.Features(train.feature[:15], train.label[:15])
  capped = knn.evaluate(few, test, k=1000)
  assert capped == knn.evaluate(few, test, k=15)
  assert 0.2 < capped["knn"] < 1.0


def test_scale_of_features_is_irrelevant_and_small_temperatures_are_safe(
  digits,
):
  train, test = digits
  scaled = features.Features(1e3 * test.feature, test.label)
  assert knn.evaluate(train, scaled) == knn.evaluate(train, test)
  nearest = knn.evaluate(train, test, k=1)
  assert knn.evaluate(train, test, temperature=1e-6) == {
    "knn": pytest.approx(nearest["knn"], abs=1e-3)
  }


def test_a_class_without_training_rows_counts_as_wrong(digits):
  train, test = digits
  other = features.Features(test.feature, test.label + 1)
  assert knn.evaluate(train, other) == {"knn": 0.0}


@pytest.mark.parametrize("fields", [{"k": 0}, {"temperature": 0.0}])
def test_fields_out_of_range(digits, fields):
  with pytest.raises(ValueError, match="k >= 1 and temperature > 0"):
    knn.evaluate(*digits, **fields)


def test_unlabelled_data(digits):
  train, test = digits
  bare = features.Features(train.feature, np.full(len(train.label), -1))
  with pytest.raises(ValueError, match=r"knn needs labels.*evals=\(\)"):
    knn.evaluate(bare, test)
