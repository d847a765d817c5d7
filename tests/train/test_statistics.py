"""Statistics of several teacher taps."""

import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from kd_jax.build import artifacts
from kd_jax.train import statistics


def parts(size, images):
  spec = jax.ShapeDtypeStruct((2, size, size, 8), np.float32)
  return types.SimpleNamespace(
    data=range(images),
    specs=({}, {"stage1": spec}),
    views=types.SimpleNamespace(num_crops=1),
  )


def test_more_rows_than_can_be_counted_are_refused():
  config = ConfigDict({"fit": {"examples": 0}})
  artifacts._check_rows(config, parts(56, 600_000), ("stage1",))
  with pytest.raises(ValueError, match="3136 positions.*examples to 684784"):
    artifacts._check_rows(config, parts(56, 1_281_167), ("stage1",))
  config.fit.examples = 50_000
  artifacts._check_rows(config, parts(56, 1_281_167), ("stage1",))


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
