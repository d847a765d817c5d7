"""The classics that learn heads of their own, or keep a queue."""

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from peers import BATCH, STUDENT, TEACHER, made

from kd_jax.methods import queue
from kd_jax.methods.classic import crd, reviewkd, simkd
from kd_jax.types import Teacher

CRD = crd.Method(width=7, negatives=10)


def test_contrast_is_the_definition():
  variables = made(CRD)
  found, stats = CRD.compare(variables, STUDENT, TEACHER, BATCH)
  rows = {}
  for side, taps in (("student", STUDENT), ("teacher", TEACHER)):
    own = jax.tree.map(np.float64, variables["params"][side])
    x = taps["pooled"] @ own["kernel"] + own["bias"]
    rows[side] = x / np.linalg.norm(x, axis=1, keepdims=True)
  for side, other in (("student", "teacher"), ("teacher", "student")):
    negatives = np.float64(variables["queue"][other])
    own = np.exp((rows[side] * rows[other]).sum(1) / 0.07)
    others = np.exp(rows[side] @ negatives.T / 0.07)
    z = others.mean()
    h, wrong = own / (own + 10 * z), others / (others + 10 * z)
    want = np.mean(-np.log(h) - np.log(1 - wrong).sum(1))
    np.testing.assert_allclose(found[side], want, rtol=2e-5)
    np.testing.assert_allclose(stats["scale"][side], z, rtol=2e-5)
    after = np.concatenate([rows[side], variables["queue"][side]])[:10]
    np.testing.assert_allclose(stats["queue"][side], after, atol=1e-6)


def test_the_scale_of_the_first_batch_stays():
  variables = made(CRD)
  _, stats = CRD.compare(variables, STUDENT, TEACHER, BATCH)
  again, after = CRD.compare({**variables, **stats}, STUDENT, TEACHER, BATCH)
  assert after["scale"] == stats["scale"]
  first, _ = CRD.compare(variables, STUDENT, TEACHER, BATCH)
  assert again["student"] != first["student"]  # its queue is another one


def test_crd_learns():
  peers.check_learns(CRD, ("student", "teacher"))


def test_a_queue_takes_the_newest_first():
  old, new = np.arange(8.0).reshape(4, 2), -np.ones((3, 2))
  np.testing.assert_array_equal(
    queue.pushed(old, new), np.concatenate([new, old[:1]])
  )
  many = np.arange(12.0).reshape(6, 2)
  np.testing.assert_array_equal(queue.pushed(old, many), many[:4])


@pytest.mark.parametrize(
  ("images", "rows"),
  [(50, 16), (51, 32), (1797, 512), (20_000, 4096), (20_001, 8192)],
)
def test_larger_data_have_longer_queues(images, rows):
  assert queue.size_for(images) == rows


def test_simkd_learns_and_keeps_statistics():
  method = simkd.Method()
  found, stats, _ = peers.check_learns(method, ("feature",))
  before = made(method)["batch_stats"]
  assert jax.tree.structure(before) == jax.tree.structure(stats["batch_stats"])
  variables = made(method)
  y, _ = method._project(variables, STUDENT["stage4"], 12, train=True)
  want = np.mean((np.float64(y) - TEACHER["stage4"]) ** 2)
  np.testing.assert_allclose(found["feature"], want, rtol=1e-5)
  assert np.min(y) == 0  # as the teacher's map, behind a ReLU


def test_simkd_reuses_the_teachers_classifier():
  method, variables = simkd.Method(), made(simkd.Method())
  kernel = np.random.default_rng(0).normal(size=(12, 5))

  def resume(begin, x):
    assert begin == "head"
    return {"logits": x.mean((1, 2)) @ kernel}

  teacher = Teacher(TEACHER, resume)
  agreed, ones = method.metrics(variables, STUDENT, teacher, BATCH)["agreement"]
  y, _ = method._project(variables, STUDENT["stage4"], 12, train=False)
  ours, theirs = (
    (np.asarray(x).mean((1, 2)) @ kernel).argmax(1)
    for x in (y, TEACHER["stage4"])
  )
  np.testing.assert_array_equal(agreed, ours == theirs)
  assert ones.sum() == 6
  assert method.metrics(variables, STUDENT, Teacher(TEACHER, None), BATCH) == {}


def test_reviewkd_learns_and_fuses_from_deep_to_shallow():
  method = reviewkd.Method(width=6)
  _, stats, _ = peers.check_learns(method, ("review",))
  variables = made(method)
  assert jax.tree.structure(variables["batch_stats"]) == jax.tree.structure(
    stats["batch_stats"]
  )
  xs = [STUDENT[s] for s in method.stages]
  shapes = [TEACHER[s].shape[1:] for s in method.stages]
  run = jax.jit(
    lambda x: method._fusion(shapes).apply(variables, x, train=False)
  )
  ys = run(xs)
  assert [y.shape[1:] for y in ys] == shapes
  # A change of the deepest map reaches all outputs, of the first only itself.
  deep, first = run([*xs[:3], xs[3] + 1]), run([xs[0] + 1, *xs[1:]])
  assert [bool(jnp.any(a != b)) for a, b in zip(ys, deep, strict=True)] == [
    True
  ] * 4
  changed = [bool(jnp.any(a != b)) for a, b in zip(ys, first, strict=True)]
  assert changed == [True, False, False, False]


def test_maps_of_other_sizes_meet_at_the_teachers():
  small = peers.network((4, 6, 8, 10), 5, size=8)
  for method in (reviewkd.Method(width=6), simkd.Method()):
    peers.check_learns(method, method.terms, student=small)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: crd.Method(negatives=0), "negatives is 0; it must be positive"),
    (lambda: simkd.Method(factor=0), "factor is 0"),
    (lambda: made(simkd.Method(tap="pooled")), "'pooled' of the student"),
    (lambda: reviewkd.Method(width=0), "width is 0"),
  ],
)
def test_heads_that_do_not_fit_are_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
