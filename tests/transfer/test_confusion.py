from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from kd_jax.train import evaluate
from kd_jax.transfer import confusion


def masks(seed, classes=6, shape=(2, 33, 70), absent=()):
  """(prediction, label), the label with ignored pixels."""
  rng = np.random.default_rng(seed)
  kept = [c for c in range(classes) if c not in absent]
  label = rng.choice([-1, *kept], shape).astype(np.int16)
  wrong = rng.choice(kept, shape)
  prediction = np.where(rng.random(shape) < 0.6, np.maximum(label, 0), wrong)
  return prediction.astype(np.int32), label


def semseg(prediction, label, classes):
  """Sums of intersections, unions and targets by histograms, as there."""
  seen = label >= 0
  said, truth = prediction[seen], label[seen]
  count = [
    np.bincount(x, minlength=classes)
    for x in (truth[said == truth], said, truth)
  ]
  return count[0], count[1] + count[2] - count[0], count[2]


@pytest.mark.parametrize("way", ["_scattered", "_multiplied"])
def test_counts_are_those_of_scikit_learn(way):
  prediction, label = masks(0)
  seen = label >= 0
  wanted = metrics.confusion_matrix(
    label[seen], prediction[seen], labels=range(6)
  )
  beyond = np.where(seen, label, 6).reshape(-1)
  ours = jax.jit(getattr(confusion, way), static_argnums=2)
  found = ours(prediction.reshape(-1), beyond, 6)
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(
    confusion.batch_counts(jnp.asarray(prediction), jnp.asarray(label), 6),
    wanted,
  )


def test_batches_add_up_on_the_device():
  step = jax.jit(lambda total, pair: confusion.add(total, *pair))
  pairs = [masks(seed) for seed in range(3)]
  counts = evaluate.fold(step, confusion.zero(6), pairs)
  both = [np.concatenate(x) for x in zip(*pairs, strict=True)]
  wanted = metrics.confusion_matrix(
    both[1][both[1] >= 0], both[0][both[1] >= 0], labels=range(6)
  )
  found = confusion.finished(counts)
  np.testing.assert_array_equal(found, wanted)
  assert found.dtype == np.int64


def test_counts_go_on_beyond_32_bits():
  full = jnp.array([[2**32 - 1, 5], [0, 2**32 - 2]], jnp.uint32)
  counts = confusion.Counts(full, jnp.array([[3, 0], [0, 0]], jnp.uint32))
  pixels = jnp.array([0, 0, 1])
  found = confusion.finished(jax.jit(confusion.add)(counts, pixels, pixels))
  assert found.tolist() == [[2**34 + 1, 5], [0, 2**32 - 1]]


@pytest.mark.parametrize("absent", [(), (2, 5)])
def test_segmentation_figures_are_those_of_semseg(absent):
  prediction, label = masks(1, absent=absent)
  matrix = np.asarray(
    confusion.batch_counts(jnp.asarray(prediction), jnp.asarray(label), 6)
  )
  hits, union, target = semseg(prediction, label, 6)
  found = confusion.segmentation(matrix)
  assert found["miou"] == pytest.approx(np.mean(hits / (union + 1e-10)))
  share = hits / (target + 1e-10)
  assert found["mean_class_accuracy"] == pytest.approx(share.mean())
  assert found["pixel_accuracy"] == pytest.approx(hits.sum() / target.sum())
  np.testing.assert_allclose(confusion.iou(matrix), hits / (union + 1e-10))
  rest = [c for c in range(6) if c not in absent]
  mean = np.mean(hits[rest] / union[rest])
  assert found["miou_present"] == pytest.approx(mean)
  assert (found["miou"] < found["miou_present"]) == bool(absent)


def test_classification_figures_leave_classes_without_samples_out():
  prediction, label = masks(2, shape=(500,), absent=(3,))
  matrix = np.asarray(
    confusion.batch_counts(jnp.asarray(prediction), jnp.asarray(label), 6)
  )
  seen = label >= 0
  hit = metrics.accuracy_score(label[seen], prediction[seen])
  mean = metrics.balanced_accuracy_score(label[seen], prediction[seen])
  found = confusion.classification(matrix)
  assert found == pytest.approx({"top1": hit, "mean_per_class": mean})


def test_data_without_labels_is_refused():
  with pytest.raises(ValueError, match="no pixel .* has a label"):
    confusion.segmentation(np.zeros((3, 3), np.int64))
  with pytest.raises(ValueError, match="no sample .* has a label"):
    confusion.classification(np.zeros((3, 3), np.int64))
