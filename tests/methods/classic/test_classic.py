"""The classics as methods: what they read, and definitions in NumPy."""

import numpy as np
import peers
import pytest
from peers import STUDENT, TEACHER

from kd_jax import resolve
from kd_jax.methods.classic import (
  attention_transfer,
  dist,
  dkd,
  fitnets,
  nst,
  pkt,
  rkd,
  sp,
)

METHODS = {
  "attention_transfer": ("attention",),
  "dist": ("images", "classes"),
  "dkd": ("decoupled",),
  "fitnets": ("hint",),
  "nst": ("selectivity",),
  "pkt": ("neighbours",),
  "rkd": ("distance", "angle"),
  "sp": ("similarity",),
}


@pytest.mark.parametrize("name", METHODS)
def test_learns_from_what_it_reads(name):
  terms = METHODS[name]
  method = resolve.build("methods", "Method", {"name": name})
  assert method.terms == terms and method.name == name
  assert not method.reads_labels
  alone, *_ = peers.check_learns(method, terms)
  more = resolve.build(
    "methods", "Method", {"name": name, "terms": (*terms, "kl", "ce")}
  )
  assert more.reads_labels
  found, *_ = peers.check_learns(more, (*terms, "kl", "ce"))
  for term in terms:
    np.testing.assert_array_equal(found[term], alone[term])


@pytest.mark.parametrize("name", METHODS)
def test_the_classifier_is_trained_if_logits_are_read(name):
  method = resolve.build("methods", "Method", {"name": name})
  (phase,) = method.phases()
  reads = phase.needs.student
  if "logits" in reads:
    assert phase.frozen == ()
  elif "pooled" in reads:
    assert phase.frozen == ("student/head",)
  else:
    assert phase.frozen == ("student/pool", "student/neck", "student/head")


def test_hint_is_the_definition():
  method = fitnets.Method(stages=("stage3", "stage4"))
  variables = {}
  for stage in ("stage3", "stage4"):
    shape = STUDENT[stage].shape[-1], TEACHER[stage].shape[-1]
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    variables[stage] = {"kernel": kernel, "bias": np.ones(shape[1])}
  found, _ = method.compare({"params": variables}, STUDENT, TEACHER, None)
  want = 0
  for stage, own in variables.items():
    s = np.einsum("nhwa,ab->nhwb", STUDENT[stage], own["kernel"]) + 1
    want += np.mean((s - TEACHER[stage]) ** 2)
  np.testing.assert_allclose(found["hint"], want, rtol=1e-5)


def test_dist_is_one_minus_correlations():
  found, *_ = peers.learn(dist.Method(temperature=2.0))

  def softmax(x):
    e = np.exp(np.float64(x) / 2)
    return e / e.sum(1, keepdims=True)

  s, t = softmax(STUDENT["logits"]), softmax(TEACHER["logits"])
  for term, pairs in (
    ("images", zip(s, t, strict=True)),
    ("classes", zip(s.T, t.T, strict=True)),
  ):
    want = 4 * np.mean([1 - np.corrcoef(*pair)[0, 1] for pair in pairs])
    np.testing.assert_allclose(found[term], want, rtol=1e-5)


def test_decoupled_with_the_two_weights_equal_is_hintons_term():
  """Equation 6: NCKD weighed by the others' probability."""
  label = TEACHER["logits"].argmax(-1)
  log_t = TEACHER["logits"] - np.log(
    np.exp(TEACHER["logits"]).sum(-1, keepdims=True)
  )
  others = 1 - np.exp(log_t)[np.arange(6), label]
  total = 0
  for row, share in enumerate(others):
    part = slice(row, row + 1)
    pair = STUDENT["logits"][part], TEACHER["logits"][part], label[part]
    total += dkd.decoupled(*pair, alpha=1, beta=float(share), temperature=1)
  log_s = STUDENT["logits"] - np.log(
    np.exp(STUDENT["logits"]).sum(-1, keepdims=True)
  )
  want = (np.exp(log_t) * (log_t - log_s)).sum()
  np.testing.assert_allclose(total, want, rtol=1e-5)


def test_decoupled_takes_labels_where_there_are_some():
  by_teacher, *_ = peers.learn(dkd.Method())
  by_label, *_ = peers.learn(dkd.Method(target="label"))
  assert by_teacher["decoupled"] != by_label["decoupled"]
  assert dkd.Method(target="label").reads_labels


@pytest.mark.parametrize("method", [attention_transfer, fitnets, nst])
def test_tokens_are_maps(method):
  def tokens(taps):
    maps = {k: v for k, v in taps.items() if v.ndim == 4}
    return {
      **taps,
      **{k: v.reshape(len(v), -1, v.shape[-1]) for k, v in maps.items()},
    }

  want, *_ = peers.learn(method.Method())
  got, *_ = peers.learn(
    method.Method(), student=tokens(STUDENT), teacher=tokens(TEACHER)
  )
  assert got == want


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: sp.Method(terms=("hint",)), "sp has the loss terms.*'similarity'"),
    (lambda: sp.Method(terms=("ce",)), "needs one of"),
    (lambda: fitnets.Method(stages=("stage2",)), "name 'stage4' among them"),
    (lambda: dist.Method(temperature=0.0), "method.temperature is 0.0"),
    (lambda: pkt.Method(kl_temperature=-1.0), "kl_temperature is -1.0"),
    (lambda: dkd.Method(target="nobody"), "target is 'nobody'"),
    (
      lambda: peers.learn(
        rkd.Method(terms=("angle", "kl")),
        teacher=peers.network((5, 8, 8, 12), 7),
      ),
      "student has 5 and the teacher 7",
    ),
    (
      lambda: peers.learn(
        dkd.Method(), teacher=peers.network((5, 8, 8, 12), 7)
      ),
      "dkd compares logits",
    ),
    (
      lambda: nst.Method(stages=("feature",)).init(
        None, peers.specs(STUDENT), peers.specs(TEACHER)
      ),
      "'feature' of the student is none; it offers \\['stage1'",
    ),
  ],
)
def test_what_does_not_fit_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
