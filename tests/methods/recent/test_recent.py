"""LightlyTrain's forms and TinyMIM: released figures, definitions in NumPy."""

import jax
import jax.image
import numpy as np
import peers
import pytest
from peers import STUDENT, TEACHER, made

from kd_jax.methods.recent import (
  lightly_both,
  lightly_dense,
  lightly_global,
  tinymim,
)

GOLDEN = peers.arrays("peers_lightly")


def test_global_is_the_released_loss():
  inputs = peers.given(GOLDEN, "lightly_global")
  rows = inputs.pop("queue")

  def loss(student, teacher):
    return lightly_global.divergence(student, teacher, rows, 0.07)

  peers.check(GOLDEN, "lightly_global", loss, **inputs)


def test_local_is_the_released_loss():
  def loss(student, teacher):
    return lightly_both.relations(student, teacher, 0.07)

  inputs = peers.given(GOLDEN, "lightly_local")
  # Tokens nearly alike: the float32 of the figures shows in their gradient.
  peers.check(GOLDEN, "lightly_local", loss, near=1e-5, **inputs)


@pytest.mark.parametrize("kind", [lightly_global, lightly_both])
def test_the_batch_is_in_the_queue_before_the_loss(kind):
  method = kind.Method(queue=9)
  found, stats, _ = peers.check_learns(method, method.OWN)
  variables = made(method)
  unit = TEACHER["pooled"] / np.linalg.norm(
    TEACHER["pooled"], axis=1, keepdims=True
  )
  rows = np.concatenate([unit, variables["queue"][:3]])
  np.testing.assert_allclose(stats["queue"], rows, atol=1e-6)
  own = variables["params"]["global"]
  x = np.float64(STUDENT["pooled"] @ own["kernel"] + own["bias"])
  x /= np.linalg.norm(x, axis=1, keepdims=True)

  def softmax(x):
    e = np.exp(x @ rows.T / 0.07)
    return e / e.sum(1, keepdims=True)

  t, s = softmax(unit), softmax(x)
  want = (t * np.log(t / s)).sum(1).mean()
  np.testing.assert_allclose(found["global"], want, rtol=1e-5)


def test_a_queue_as_long_as_lightly_makes_it():
  assert lightly_global.Method(images=1500).rows == 512
  assert lightly_global.Method().rows == 8192
  assert lightly_global.Method(images=1500, queue=7).rows == 7


@pytest.mark.parametrize("hidden", [0, 5])
def test_dense_is_mean_squared_error_of_joined_maps(hidden):
  method = lightly_dense.Method(hidden=hidden)
  found, *_ = peers.check_learns(method, ("dense",))
  variables = made(method)
  assert ("hidden" in variables["params"]) == bool(hidden)
  head = lightly_dense.Head(20, hidden)
  y = head.apply({"params": variables["params"]}, STUDENT["stage4"])
  early = TEACHER["stage3"].reshape(6, 2, 2, 2, 2, 8).mean((2, 4))
  target = np.concatenate([early, TEACHER["stage4"]], -1)
  np.testing.assert_allclose(
    found["dense"], np.mean((y - target) ** 2), rtol=1e-5
  )


def test_tinymim_is_the_divergence_of_relations():
  method = tinymim.Method(heads=2)
  found, *_ = peers.check_learns(method, ("relations",))

  def relations(x):
    n, h, w, c = x.shape
    x = np.float64(x).reshape(n, h * w, 2, c // 2).transpose(0, 2, 1, 3)
    e = np.exp(x @ x.transpose(0, 1, 3, 2) / np.sqrt(c / 2))
    return e / e.sum(-1, keepdims=True)

  s, t = relations(STUDENT["stage4"]), relations(TEACHER["stage4"])
  want = (t * np.log(t / s)).sum(-1).mean()
  np.testing.assert_allclose(found["relations"], want, rtol=1e-5)


@pytest.mark.parametrize(
  "method",
  [lightly_both.Method(queue=9), lightly_dense.Method(), tinymim.Method()],
)
def test_a_smaller_grid_is_resized(method):
  small = peers.network((4, 6, 8, 10), 5, size=8)
  if isinstance(method, tinymim.Method):
    x = STUDENT["stage4"][:, :1]  # one row of cells
    taps = {**STUDENT, "stage4": x}
    found, *_ = peers.learn(method, student=taps)
    whole = np.asarray(jax.image.resize(x, (6, 2, 2, 10), "linear"))
    want, *_ = peers.learn(method, student={**STUDENT, "stage4": whole})
    np.testing.assert_allclose(found["relations"], want["relations"], rtol=1e-6)
  else:
    found, *_ = peers.learn(method, student=small)
    assert all(np.isfinite(x) and x > 0 for x in found.values())


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: lightly_global.Method(queue=-1), "queue=-1; both must be"),
    (lambda: lightly_global.Method(temperature=0.0), "temperature is 0.0"),
    (lambda: lightly_dense.Method(hidden=-1), "hidden is -1"),
    (lambda: made(lightly_dense.Method(student="feature")), "'feature' of the"),
    (lambda: made(tinymim.Method(heads=3)), "must divide the widths.*10, 12"),
    (
      lambda: made(lightly_both.Method(teacher_map="logits")),
      "'logits' of the teacher",
    ),
  ],
)
def test_what_does_not_fit_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()


def test_the_queue_counts_among_the_state_not_the_parameters():
  variables = made(lightly_global.Method(queue=9))
  assert set(variables) == {"params", "queue"}
  assert variables["queue"].shape == (9, 12)
