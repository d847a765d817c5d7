"""Proteus' three terms in NumPy."""

import jax
import numpy as np
import peers
import pytest
from peers import BATCH, STUDENT, TEACHER, made

from kd_jax.methods.recent import proteus

FIELDS = {"student": "stage4", "teacher": "stage4"}
MASK = np.random.default_rng(1).random((6, 2, 2)) < 0.4


def head(params, x):
  norm, out = params["norm"], params["out"]
  x = np.float64(x)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * norm["scale"] + norm["bias"]
  return x @ out["kernel"] + out["bias"]


def test_the_three_terms_are_the_definitions():
  method = proteus.Method(**FIELDS)
  variables = made(method)
  params = jax.tree.map(np.float64, variables["params"])
  assert set(params) == {"token", "feature", "patch"}
  second = STUDENT["stage4"][::-1]
  taps = {**STUDENT, "hidden/stage4": second, "hidden/mask": MASK}
  found, _ = method.compare(variables, taps, TEACHER, BATCH)
  token = head(params["token"], STUDENT["pooled"]) - TEACHER["pooled"]
  np.testing.assert_allclose(found["token"], (token**2).mean(), rtol=1e-5)
  patches = head(params["feature"], STUDENT["stage4"]) - TEACHER["stage4"]
  whole = np.concatenate([token[:, None], patches.reshape(6, 4, 12)], 1)
  np.testing.assert_allclose(found["feature"], (whole**2).mean(), rtol=1e-5)
  unseen = (head(params["patch"], second) - TEACHER["stage4"])[MASK]
  np.testing.assert_allclose(found["patch"], (unseen**2).mean(), rtol=1e-5)


def test_without_hidden_patches_the_term_is_nothing():
  method = proteus.Method(terms=("patch",), **FIELDS)
  taps = {**STUDENT, "hidden/stage4": STUDENT["stage4"]}
  taps["hidden/mask"] = np.zeros_like(MASK)
  found, _ = method.compare(made(method), taps, TEACHER, BATCH)
  assert found["patch"] == 0
  (phase,) = method.phases()
  assert phase.may_vanish == ("patch",) and phase.hidden.taps == ("stage4",)


@pytest.mark.parametrize("terms", [("token",), ("token", "feature")])
def test_without_the_patch_term_the_student_runs_once(terms):
  method = proteus.Method(terms=terms, **FIELDS)
  (phase,) = method.phases()
  assert phase.hidden is None and phase.may_vanish == ()
  assert ("stage4" in phase.needs.student) == (len(terms) > 1)
  peers.check_learns(method, terms)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: proteus.Method(prob=1.5), "prob is 1.5 and share=0.5"),
    (lambda: proteus.Method(patch=0), "patch is 0"),
    (
      lambda: made(proteus.Method(**{**FIELDS, "teacher": "pooled"})),
      "teacher",
    ),
  ],
)
def test_what_proteus_cannot_do_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
