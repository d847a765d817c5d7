"""KDEP's terms on maps, against NumPy."""

import jax
import numpy as np
import peers
import pytest
from peers import STUDENT, TEACHER

from kd_jax.align import basis as basis_lib
from kd_jax.methods import kdep, kdep_dense
from kd_jax.models.blocks import projector
from kd_jax.types import Teacher


def artifact(tap):
  rows = TEACHER[tap].reshape(-1, TEACHER[tap].shape[-1])
  rng = np.random.default_rng(0)
  rows = np.tile(rows, (4, 1))
  rows = np.float32(rows + rng.normal(size=rows.shape))
  state = basis_lib.update(
    basis_lib.init(rows.shape[1]), rows, np.ones(len(rows), np.float32)
  )
  found = basis_lib.finish(state)
  return {**found.artifact(found.mean.size), "rows": np.float32(len(rows))}


ARTIFACT = {tap: artifact(tap) for tap in ("feature", "stage3", "stage4")}


def target(tap, width):
  own = ARTIFACT[tap]
  z = np.float64(TEACHER[tap] - own["mean"]) @ own["basis"][:, :width]
  return np.sign(z) * np.abs(z / 0.1) ** (1 / 3)


def test_both_terms_are_the_definition():
  found, *_ = peers.check_learns(
    kdep_dense.Method(), ("summary", "patches"), artifact=ARTIFACT
  )
  for term, tap in (("summary", "feature"), ("patches", "stage4")):
    want = np.mean((STUDENT[tap] - target(tap, 10)) ** 2)
    np.testing.assert_allclose(found[term], want, rtol=1e-4)


def test_the_summary_is_kdep():
  found, *_ = peers.learn(
    kdep_dense.Method(terms=("summary",)), artifact=ARTIFACT
  )
  variables = {"artifact": ARTIFACT["feature"]}
  want, _ = kdep.Method().losses(
    variables, STUDENT, Teacher(TEACHER, None), peers.BATCH
  )
  np.testing.assert_allclose(found["summary"], want["feature"], rtol=1e-6)


def test_the_targets_come_to_the_students_grid():
  method = kdep_dense.Method(terms=("patches",), teacher="stage3")
  found, *_ = peers.learn(method, artifact=ARTIFACT)
  # Twice as large; the student is wider than the teacher's 8 directions.
  wide = np.resize(np.arange(8), 10)
  z = target("stage3", 8)[..., wide]
  small = np.asarray(jax.image.resize(np.float32(z), (6, 2, 2, 10), "linear"))
  want = np.mean((STUDENT["stage4"] - small) ** 2)
  np.testing.assert_allclose(found["patches"], want, rtol=1e-4)


@pytest.mark.parametrize(("head", "hidden"), [("linear", 0), ("mlp", 5)])
def test_heads_learn_wider_targets(head, hidden):
  method = kdep_dense.Method(head=head, width=11, hidden=hidden or 1)
  _, _, grads = peers.check_learns(
    method, ("summary", "patches"), artifact=ARTIFACT
  )
  own = grads["params"]["patches"]
  assert own["out"]["kernel"].shape == (hidden or 10, 11)
  assert ("hidden" in own) == bool(hidden)


def test_scalekds_projector_is_a_head_on_the_teachers_grid():
  method = kdep_dense.Method(
    teacher="stage3", head="attention", width=8, heads=2, sharpness=5.0
  )
  own = peers.made(method)["params"]
  assert "out" in own["summary"]  # a vector has nothing to attend to
  params = own["patches"]["projector"]
  assert params["query"].shape == (16, 8)  # 4 x 4, the student has 2 x 2
  project = projector.Projector(8, 2, 16, 5.0, "layer")
  tokens = project.apply({"params": params}, STUDENT["stage4"], train=False)
  want = np.mean((tokens - target("stage3", 8).reshape(6, 16, 8)) ** 2)
  found, _, grads = peers.check_learns(
    method, ("summary", "patches"), artifact=ARTIFACT
  )
  np.testing.assert_allclose(found["patches"], want, rtol=1e-4)
  assert set(grads["params"]["patches"]["projector"]) == set(params)


def test_only_the_taps_of_its_terms_are_fitted():
  assert kdep_dense.Method().artifact_taps == ("feature", "stage4")
  assert kdep_dense.Method(terms=("patches",)).artifact_taps == ("stage4",)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: kdep_dense.Method(head="deep"), "head is 'deep'"),
    (
      lambda: peers.made(kdep_dense.Method(head="attention", heads=3)),
      "3 heads, which do not divide the teacher's width 10. Set --config.meth",
    ),
    (lambda: kdep_dense.Method(width=4), "width is 4 with head='none'"),
    (lambda: kdep_dense.Method(power=0.0), "power is 0.0"),
    (
      lambda: peers.made(kdep_dense.Method(head="linear", width=13)),
      "width is 13, and the teacher's tap 'feature' has 12",
    ),
    (
      lambda: peers.made(kdep_dense.Method(student="pooled")),
      "'pooled' of the student is none",
    ),
  ],
)
def test_what_does_not_fit_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
