"""Statistics of several teacher taps."""

import types

import jax
import numpy as np
import pytest

from kd_jax.train.teacher import statistics
from kd_jax.train.teacher.artifact import Fit


def check_rows(images, examples):
  spec = jax.ShapeDtypeStruct((2, 56, 56, 8), np.float32)
  inputs = types.SimpleNamespace(
    source=range(images), views=types.SimpleNamespace(num_crops=1)
  )
  fit = Fit(None, inputs, None, None, augment=True, examples=examples)
  fit.check_rows({"stage1": spec}, ("stage1",))


def test_more_rows_than_can_be_counted_are_refused():
  check_rows(600_000, 0)
  with pytest.raises(ValueError, match="3136 positions.*examples to 684784"):
    check_rows(1_281_167, 0)
  check_rows(1_281_167, 50_000)


def test_every_position_and_patch_is_a_row():
  rng = np.random.default_rng(0)
  mask = np.float32([1, 0])
  maps = rng.normal(size=(2, 2, 2, 3)).astype(np.float32)
  found, counts = statistics.rows(maps, mask)
  np.testing.assert_array_equal(found, maps.reshape(8, 3))
  np.testing.assert_array_equal(counts, [1, 1, 1, 1, 0, 0, 0, 0])
  tokens = rng.normal(size=(2, 5, 3)).astype(np.float32)
  found, counts = statistics.rows(tokens, mask)
  np.testing.assert_array_equal(found, tokens[:, 1:].reshape(8, 3))
  vectors = rng.normal(size=(2, 3)).astype(np.float32)
  found, counts = statistics.rows(vectors, mask)
  assert found is vectors and counts is mask
