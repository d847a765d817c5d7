"""Figures of classifiers and segmenters against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kd_jax.data import pipeline, windows
from kd_jax.data.chosen import Chosen
from kd_jax.data.dense import Dense
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits, scenes
from kd_jax.train import mesh as mesh_lib
from kd_jax.transfer import classify, segment

TEST = digits.Source("test[:70]")
VIEWS = Preprocess(
  8, interpolation="bilinear", crop_pct=1.0, augment="shift", shift=0
)


class Linear(nn.Module):
  """A classifier of the pixels' values."""

  num_classes: int = 10

  @nn.compact
  def __call__(self, x, *, train):
    x = x.reshape(len(x), -1)
    return {"logits": nn.Dense(self.num_classes, name="head")(x)}


class Painter(nn.Module):
  """Labels every pixel by its colour."""

  num_classes: int = 3

  @nn.compact
  def __call__(self, x, *, train):
    return {"logits": nn.Dense(self.num_classes, name="head")(x)}


def passes(batch_size, source):
  return pipeline.eval_batches(source, VIEWS, batch_size=batch_size)


@functools.cache
def judged(batch_size):
  """(judge, variables)."""
  model = Linear()
  variables = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  batches = functools.partial(passes, batch_size)
  return classify.Judge(model, mesh_lib.make_mesh(), batches), variables


def answers(source=TEST):
  """(logits, labels) of every image, by NumPy."""
  weights = judged(16)[1]["params"]["head"]
  images = np.stack([VIEWS.eval(source[i]) for i in range(len(source))])
  flat = images.reshape(len(images), -1) / 255.0
  logits = flat @ np.asarray(weights["kernel"], np.float64) + weights["bias"]
  return logits, np.asarray(source.all_labels())


@pytest.mark.parametrize("batch_size", [16, 70])
def test_figures_of_a_classifier(batch_size):
  """The last batch of 16 has ten rows that are no images."""
  judge, variables = judged(batch_size)
  # Unequal classes: otherwise the two accuracies are one.
  rows = np.flatnonzero(
    (np.asarray(TEST.all_labels()) > 3) | (np.arange(70) < 35)
  )
  source = Chosen(TEST, rows)
  logits, labels = answers(source)
  order = np.argsort(-logits, 1)
  hit = order[:, 0] == labels
  found = judge.figures(variables, source)
  means = [hit[labels == c].mean() for c in range(10)]
  assert found["top1"] == pytest.approx(hit.mean()) and 0 < hit.mean() < 1
  assert found["mean_per_class"] == pytest.approx(np.mean(means))
  within = (order[:, :5] == labels[:, None]).any(1).mean()
  assert found["top5"] == pytest.approx(within) and within > hit.mean()
  assert found["mean_per_class"] != pytest.approx(found["top1"])


def test_classes_without_a_test_image_do_not_count():
  judge, variables = judged(16)
  source = digits.Source("test[:7]")
  logits, labels = answers(source)
  assert len(set(labels.tolist())) == 7
  found = judge.figures(variables, source)
  hit = (logits.argmax(1) == labels).mean()
  assert found["mean_per_class"] == pytest.approx(hit)


def test_predictions_of_every_image():
  judge, variables = judged(16)
  logits, labels = answers()
  said = judge.predictions(variables, TEST)
  np.testing.assert_array_equal(said.row, np.arange(70))
  np.testing.assert_array_equal(said.label, labels)
  np.testing.assert_array_equal(said.predicted, logits.argmax(1))
  e = np.exp(logits - logits.max(1, keepdims=True))
  want = (e / e.sum(1, keepdims=True)).max(1)
  np.testing.assert_allclose(said.confidence, want, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_of_several_processes_find_their_places(count, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: count)
  batch, rows = 8, 24
  shares = [
    passes_of(process, count, batch, rows // batch) for process in range(count)
  ]
  # A global batch holds the processes' rows one after the other.
  batches = [np.concatenate(parts) for parts in zip(*shares, strict=True)]
  found = classify._places(rows, batch)
  np.testing.assert_array_equal(found, np.concatenate(batches))


def passes_of(process, count, batch_size, batches):
  """Places of the records that a process reads, batch by batch."""
  own = np.arange(batch_size * batches)[process::count]
  return own.reshape(batches, -1)


def test_a_test_set_without_labels_is_refused():
  judge, variables = judged(16)
  with pytest.raises(ValueError, match="no sample of the test data has a lab"):
    judge.figures(variables, digits.Source("test[:9]", labels=False))


SCENES = scenes.Source(
  "test", length=10, size=16, classes=(3, 8), min_size=0.6, max_size=0.9
)
DENSE = Dense(16, augment="none")


@functools.cache
def painted():
  model = Painter()
  variables = model.init(jax.random.key(1), jnp.ones((1, 4, 4, 3)), train=False)
  batches = lambda s: windows.window_batches(s, DENSE, batch_size=4)  # noqa: E731
  judge = segment.Judge(model, mesh_lib.make_mesh(), batches, 16, mirror=True)
  return judge, variables


def by_numpy(record):
  weights = painted()[1]["params"]["head"]
  logits = record["image"] / 255.0 @ np.asarray(weights["kernel"], np.float64)
  return (logits + np.asarray(weights["bias"])).argmax(-1)


def test_figures_of_a_segmenter():
  judge, variables = painted()
  counts = np.zeros((3, 3))
  for i in range(len(SCENES)):
    record = SCENES[i]
    known = record["mask"] >= 0
    cells = (record["mask"][known], by_numpy(record)[known])
    np.add.at(counts, cells, 1)
  found = judge.figures(variables, SCENES)
  hits = np.diag(counts)
  union = counts.sum(0) + counts.sum(1) - hits
  assert found["miou"] == pytest.approx((hits / union).mean(), abs=1e-6)
  assert found["pixel_accuracy"] == pytest.approx(hits.sum() / counts.sum())
  assert 0 < found["miou"] < found["pixel_accuracy"] < 1
  np.testing.assert_array_equal(judge.counts(variables, SCENES), counts)


def test_examples_are_the_first_images():
  judge, variables = painted()
  shown = list(judge.examples(variables, SCENES, 6))
  assert len(shown) == 6
  for i, example in enumerate(shown):
    record = SCENES[i]
    np.testing.assert_array_equal(example.image, record["image"])
    np.testing.assert_array_equal(example.truth, record["mask"])
    np.testing.assert_array_equal(example.predicted, by_numpy(record))


@pytest.mark.parametrize("case", ["classify", "segment"])
def test_a_pass_waits_for_no_batch_before_the_next_is_sent(case, monkeypatch):
  """Counts what comes to the host and what goes to the devices, in order."""
  judge, variables = judged(16) if case == "classify" else painted()
  source = TEST if case == "classify" else SCENES
  judge.figures(variables, source)  # compiled
  order = []
  put, get, wait = mesh_lib.put_batch, np.asarray, jax.block_until_ready
  counted = judge._count

  def told(name, function):
    def call(*args, **kwargs):
      on_device = any(isinstance(x, jax.Array) for x in args)
      if name != "host" or on_device:
        order.append(name)
      return function(*args, **kwargs)

    return call

  monkeypatch.setattr(mesh_lib, "put_batch", told("put", put))
  monkeypatch.setattr(np, "asarray", told("host", get))
  monkeypatch.setattr(jax, "block_until_ready", told("wait", wait))
  object.__setattr__(judge, "_count", told("send", counted))
  try:
    judge.figures(variables, source)
  finally:
    object.__setattr__(judge, "_count", counted)
  batches = order.count("send")
  assert batches == {"classify": 5, "segment": 3}[case]
  # What is waited for is the total before the batch that was just sent.
  assert order[: 3 * batches] == ["put", "send", "wait"] * batches
  rest = order[3 * batches :]
  assert set(rest) == {"host"} and len(rest) <= 5


def test_a_wait_is_for_the_batch_before(monkeypatch):
  judge, variables = judged(16)
  sent, waited = [], []
  counted, wait = judge._count, jax.block_until_ready

  def send(total, *rest):
    sent.append(counted(total, *rest))
    return sent[-1]

  def note(total):
    known = [id(x) for x in sent]
    waited.append(known.index(id(total)) if id(total) in known else -1)
    return wait(total)

  monkeypatch.setattr(jax, "block_until_ready", note)
  object.__setattr__(judge, "_count", send)
  try:
    judge.figures(variables, TEST)
  finally:
    object.__setattr__(judge, "_count", counted)
  assert waited == [-1, 0, 1, 2, 3] and len(sent) == 5
