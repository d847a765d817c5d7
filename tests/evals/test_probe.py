from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn import datasets

from kd_jax.evals import features, probe


@pytest.fixture(scope="module")
def digits():
  x, y = datasets.load_digits(return_X_y=True)
  x = x.astype(np.float32)
  train = features.Features(x[:1000], y[:1000])
  return train, features.Features(x[1000:], y[1000:])


def test_digits_are_linearly_separable_and_the_fit_converges(digits, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    found = probe.evaluate(*digits)
  assert set(found) == {"probe"}
  assert 0.9 < found["probe"] < 1.0
  assert not caplog.records


@pytest.mark.slow
def test_scale_and_offset_of_channels_are_irrelevant(digits):
  train, test = digits
  scale = np.logspace(-3, 3, 64, dtype=np.float32)

  def moved(x: features.Features) -> features.Features:
    return features.Features(x.feature * scale + 4 * scale, x.label)

  plain, other = (
    probe.evaluate(train, test),
    probe.evaluate(moved(train), moved(test)),
  )
  assert other["probe"] == pytest.approx(plain["probe"], abs=0.005)


def test_random_labels_score_by_chance(digits):
  train, test = digits
  rng = np.random.default_rng(0)
  noise = features.Features(train.feature, rng.integers(0, 10, 1000))
  assert probe.evaluate(noise, test, C=0.01)["probe"] < 0.25


def test_a_fit_that_is_cut_short_counts_and_is_logged(digits, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    found = probe.evaluate(*digits, max_iter=3)
  assert 0.5 < found["probe"] < probe.evaluate(*digits)["probe"]
  assert "probe: not converged after 3 iterations" in caplog.text


@pytest.mark.parametrize("fields", [{"C": 0.0}, {"max_iter": 0}])
def test_fields_out_of_range(digits, fields):
  with pytest.raises(ValueError, match="C > 0 and max_iter >= 1"):
    probe.evaluate(*digits, **fields)


def test_one_class_only(digits):
  train, test = digits
  same = features.Features(train.feature, np.zeros(1000, int))
  with pytest.raises(ValueError, match=r"at least two classes.*only \[0\]"):
    probe.evaluate(same, test)


def test_unlabelled_data(digits):
  train, test = digits
  bare = features.Features(test.feature, np.full(len(test.label), -1))
  with pytest.raises(ValueError, match=r"probe needs labels.*evals=\(\)"):
    probe.evaluate(train, bare)
