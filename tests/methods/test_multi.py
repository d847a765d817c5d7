"""Several methods at once are the sum of each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import trees
from kd_jax.methods import kdep, multi, scalekd
from kd_jax.types import Batch, Teacher

KDEP = {"name": "kdep", "align": {"name": "linear"}}
SCALEKD = {"name": "scalekd", "resume": "", "heads": (2, 2)}
PARTS = {"a": KDEP, "b": SCALEKD, "idle": KDEP}
RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


TAPS = {
  "feature": normal(4, 6),
  "stage3": normal(4, 4, 4, 3),
  "stage4": normal(4, 2, 2, 6),
  "logits": normal(4, 3),
}
TAUGHT = {
  "feature": normal(4, 8),
  "final": normal(4, 2, 2, 8),
  "logits": normal(4, 3),
}
BATCH = Batch(normal(4, 2, 2, 3), np.arange(4) % 3, np.ones(4, np.float32))


def specs(taps):
  return {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in taps.items()
  }


@pytest.fixture(scope="module")
def both():
  method = multi.Method(terms=("a/feature", "a/kl", "b/final"), parts=PARTS)
  key = jax.random.key(0)
  variables = method.init(key, specs(TAPS), specs(TAUGHT))
  losses = jax.jit(lambda v: method.losses(v, TAPS, teacher(), BATCH))
  return method, variables, losses(variables)


def teacher():
  return Teacher({k: jnp.asarray(v) for k, v in TAUGHT.items()}, None)


def test_terms_are_those_of_the_parts(both):
  method, variables, (found, stats) = both
  assert set(found) == {"a/feature", "a/kl", "b/final"}
  alone = kdep.Method(terms=("feature", "kl"), align={"name": "linear"})
  own = {"params": variables["params"]["a"]}
  want, _ = alone.losses(own, TAPS, teacher(), BATCH)
  np.testing.assert_allclose(found["a/feature"], want["feature"], rtol=1e-5)
  np.testing.assert_allclose(found["a/kl"], want["kl"], rtol=1e-5)
  second = scalekd.Method(terms=("final",), resume="", heads=(2, 2))
  own = {"params": variables["params"]["b"], **variables["b"]}
  want, new = second.losses(own, TAPS, teacher(), BATCH)
  np.testing.assert_allclose(found["b/final"], want["final"], rtol=1e-5)
  # Statistics come back where they were.
  assert set(stats) == {"b"}
  got, want = trees.flatten(stats["b"]), trees.flatten(new)
  assert set(got) == set(want) <= set(trees.flatten(variables["b"]))
  for path, value in want.items():
    # Means near 0 are float32 sums of values near 1, compiled apart.
    np.testing.assert_allclose(got[path], value, rtol=1e-5, atol=1e-6)
    assert np.any(value != trees.flatten(variables["b"])[path])


def test_one_phase_reads_and_trains_what_any_part_does(both):
  (phase,) = both[0].phases()
  assert set(phase.needs.student) == {"feature", "logits", "stage3", "stage4"}
  assert set(phase.needs.teacher) == {"feature", "final", "logits"}
  assert phase.frozen == () and "method" in phase.trainable
  features = ("a/feature", "b/final")
  (phase,) = multi.Method(terms=features, parts=PARTS).phases()
  assert phase.frozen == ("student/head",)


def test_figures_carry_the_name_of_their_part(both):
  method, variables, _ = both
  found = method.metrics(variables, TAPS, teacher(), BATCH)
  assert {"a/feature_error", "b/feature_error"} <= set(found)


def test_a_basis_is_shared():
  parts = {"a": {"name": "kdep"}, "b": SCALEKD}
  method = multi.Method(terms=("a/feature", "b/final"), parts=parts)
  assert method.artifact_tap == "feature"
  assert multi.Method(terms=("b/final",), parts=parts).artifact_tap is None
  assert not method.reads_labels
  assert multi.Method(terms=("b/final", "b/bce"), parts=parts).reads_labels


@pytest.mark.parametrize(
  ("terms", "parts", "message"),
  [
    (("feature",), PARTS, "has the parts"),
    ((), PARTS, "none with a weight"),
    (("c/feature",), PARTS, "'c/feature'"),
    (("a/nosuch",), PARTS, "has no loss term"),
    (("x/ce",), {"x": {"name": "nosuch"}}, "methods has no 'nosuch'"),
    (
      ("s/stage4", "a/feature"),
      {"a": KDEP, "s": {"name": "stagewise"}},
      "depend on the networks",
    ),
    (
      ("f/soft", "a/feature"),
      {"a": KDEP, "f": {"name": "fkd", "single_last": 0.5}},
      "phases",
    ),
  ],
)
def test_impossible_combinations_are_refused(terms, parts, message):
  with pytest.raises(ValueError, match=message):
    multi.Method(terms=terms, parts=parts)
