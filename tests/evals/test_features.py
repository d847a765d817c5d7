from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import types
from kd_jax.evals import features

W = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


@jax.jit
def network(image):
  flat = image.reshape(image.shape[0], -1).astype(jnp.float32)
  return {"stem": image, "pooled": (flat @ W).astype(jnp.bfloat16)}


def batches(rows=(4, 4, 2), size=4):
  """Batches of `size` whose last rows are padding with label 99."""
  rng = np.random.default_rng(1)
  for index, valid in enumerate(rows):
    image = rng.integers(0, 256, (size, 2, 2, 3)).astype(np.uint8)
    label = np.where(np.arange(size) < valid, 10 * index + np.arange(size), 99)
    mask = (np.arange(size) < valid).astype(np.float32)
    yield types.Batch(image=image, label=label, mask=mask)


def reference():
  """The valid rows' features, computed with NumPy."""
  image = np.concatenate([b.image[b.mask > 0] for b in batches()])
  return image.reshape(len(image), -1).astype(np.float32) @ W


def test_keeps_valid_rows_in_order_as_float32():
  found = features.extract(network, batches(), "pooled")
  assert found.feature.dtype == np.float32
  assert found.label.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21]
  np.testing.assert_allclose(found.feature, reference(), rtol=0.01, atol=2.0)


def test_arrays_sharded_over_a_mesh_give_the_same_rows():
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  spec = jax.sharding.PartitionSpec("data")
  sharding = jax.sharding.NamedSharding(mesh, spec)
  size = 4 * len(jax.devices())
  plain = list(batches((size, size - 1), size))
  spread = [jax.device_put(batch, sharding) for batch in plain]
  expected = features.extract(network, plain, "pooled")
  found = features.extract(network, spread, "pooled")
  np.testing.assert_array_equal(found.label, expected.label)
  # Of several devices, each computes fewer rows: another program.
  np.testing.assert_allclose(found.feature, expected.feature, 0.01, 2.0)
  assert len(found.label) == 2 * size - 1


def test_unknown_tap_names_the_taps_there_are():
  with pytest.raises(
    ValueError, match=r"no tap 'stage9'.*\['pooled', 'stem'\]"
  ):
    features.extract(network, batches(), "stage9")


def test_maps_are_refused_with_the_taps_that_fit():
  with pytest.raises(ValueError, match=r"one vector per image.*\['pooled'\]"):
    features.extract(network, batches(), "stem")


@pytest.mark.parametrize("rows", [(), (0, 0)])
def test_an_empty_pass_is_refused(rows):
  with pytest.raises(ValueError, match="no rows to extract 'pooled' from"):
    features.extract(network, batches(rows), "pooled")


def test_labels_of_other_images_are_refused():
  batch = next(batches()).replace(label=np.arange(8))
  with pytest.raises(ValueError, match="has 4 rows, labels 8, mask 4"):
    features.extract(network, [batch], "pooled")


def some(rows=6, width=3):
  rng = np.random.default_rng(2)
  feature = rng.normal(size=(rows, width)).astype(np.float32)
  return features.Features(feature, np.arange(rows) % 2)


def test_check_accepts_labelled_finite_features():
  features.check(some(), some(4), "knn")


def test_unlabelled_rows_are_counted_and_the_switch_is_named():
  bad = some()._replace(label=np.array([0, 1, -1, -1, 0, 1]))
  expected = (
    r"probe needs labels, and 2 of 6 test rows have none"
    r".*--config\.eval\.evals=\(\)"
  )
  with pytest.raises(ValueError, match=expected):
    features.check(some(), bad, "probe")


def test_empty_not_finite_and_unlike_features_are_refused():
  with pytest.raises(ValueError, match="knn got no test rows"):
    features.check(some(), some(0), "knn")
  bad = some()
  bad.feature[1, 1] = np.nan
  with pytest.raises(ValueError, match="train features with NaN or infinite"):
    features.check(bad, some(), "knn")
  with pytest.raises(ValueError, match="3 train and 4 test dimensions"):
    features.check(some(), some(width=4), "knn")
