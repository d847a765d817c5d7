"""DINOv3's terms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from peers import BATCH, STUDENT, TEACHER, made

from kd_jax.methods.recent import dinov3, lightly_dense

FIELDS = {
  "student": "stage4",
  "teacher": "stage4",
  "prototypes": 7,
  "hidden": 5,
}
MASK = np.random.default_rng(1).random((6, 2, 2)) < 0.5


def unit(x):
  return np.float64(x) / np.linalg.norm(x, axis=-1, keepdims=True)


def sinkhorn(scores):
  q = np.exp(scores).T
  q /= q.sum()
  for _ in range(3):
    q /= q.sum(1, keepdims=True) * q.shape[0]
    q /= q.sum(0, keepdims=True) * q.shape[1]
  return (q * q.shape[1]).T


def cross_entropy(variables, term, x, target):
  params = {"params": variables["params"][term]}
  x = lightly_dense.Head(12, 5).apply(params, x)
  prototypes = np.float64(variables["prototypes"][term])
  share = sinkhorn(unit(target) @ prototypes.T / 0.07)
  scores = unit(x) @ prototypes.T / 0.1
  log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
  return -(share * log_p).sum(1).mean()


def test_the_terms_are_the_definitions():
  method = dinov3.Method(**FIELDS)
  variables = made(method)
  second = STUDENT["stage4"][::-1]
  taps = {**STUDENT, "hidden/stage4": second, "hidden/mask": MASK}
  found, stats = method.compare(variables, taps, TEACHER, BATCH)
  assert stats == {} and set(found) == {"image", "patch", "koleo"}
  want = cross_entropy(variables, "image", STUDENT["pooled"], TEACHER["pooled"])
  np.testing.assert_allclose(found["image"], want, rtol=1e-5)
  rows = second[MASK], TEACHER["stage4"][MASK]
  want = cross_entropy(variables, "patch", *rows)
  np.testing.assert_allclose(found["patch"], want, rtol=1e-5)
  x = unit(STUDENT["pooled"])
  apart = np.linalg.norm(x[:, None] - x, axis=-1) + 9 * np.eye(6)
  np.testing.assert_allclose(
    found["koleo"], -np.log(apart.min(1)).mean(), rtol=1e-5
  )


def test_balanced_columns_are_used_alike():
  scores = np.random.default_rng(0).normal(size=(50, 4)) + [3, 0, 0, 0]
  share = dinov3.balanced(jnp.float32(scores), jnp.ones(50))
  np.testing.assert_allclose(share.sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(share.sum(0), 12.5, rtol=0.1)
  plain = jax.nn.softmax(scores).sum(0)
  assert plain[0] > 2 * 12.5


def test_without_patches_the_student_runs_once_and_learns():
  method = dinov3.Method(terms=("image", "koleo"), **FIELDS)
  assert method.phases()[0].hidden is None
  found, _, grads = peers.learn(method)
  assert set(found) == {"image", "koleo"} and found["image"] > 0
  for grad in jax.tree.leaves(grads):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
  assert dinov3.Method(**FIELDS).phases()[0].hidden.taps == ("stage4",)


def test_equal_rows_have_a_finite_gradient():
  grad = jax.grad(dinov3.koleo)(jnp.ones((3, 4)))
  assert np.isfinite(grad).all()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"prototypes": 0}, "prototypes is 0"),
    ({"share": 2.0}, "share=2.0; both are at most 1"),
    ({"temperature": -0.1}, "temperature is -0.1"),
  ],
)
def test_what_dinov3_cannot_be_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    dinov3.Method(**fields)
