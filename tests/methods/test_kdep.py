"""KDEP's terms against NumPy, for every aligner, without networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import interfaces, resolve
from kd_jax.align import basis as basis_lib
from kd_jax.methods import kdep, supervised
from kd_jax.train import phases
from kd_jax.types import Batch, Teacher

ROWS, D, WIDTH, CLASSES = 12, 10, 6, 5
ALIGNERS = resolve.names("align", "Aligner")
HEADED = ("linear", "phi_s", "scalar", "standardise", "whitening")


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  teacher = rng.normal(size=(ROWS, D)) @ rng.normal(size=(D, D)) + 3
  feature = rng.normal(size=(ROWS, WIDTH))
  state = basis_lib.update(
    basis_lib.init(D), jnp.float32(teacher), np.ones(ROWS, np.float32)
  )
  maps = {
    name: rng.normal(size=(ROWS, size, size, 3))
    for name, size in zip(kdep.STAGES, (8, 4, 4, 2), strict=True)
  }
  logits = [rng.normal(size=(ROWS, CLASSES)) for _ in range(2)]
  wide = {**maps, "feature": teacher, "logits": logits[0]}
  slim = {**maps, "feature": feature, "logits": logits[1]}

  def as_float(taps):
    return {k: np.float32(v) for k, v in taps.items()}

  fitted = basis_lib.finish(state)
  return {
    "student": as_float({k: v * 0.9 + 0.1 for k, v in slim.items()}),
    "teacher": Teacher(as_float(wide), None),
    "artifact": fitted.artifact(WIDTH),
    "whole": fitted.artifact(D),
    "batch": Batch(
      image=np.zeros((ROWS, 8, 8, 3), np.float32),
      label=np.arange(ROWS, dtype=np.int32) % CLASSES,
      mask=np.ones(ROWS, np.float32),
    ),
  }


def specs(taps):
  return {
    k: jax.ShapeDtypeStruct(np.shape(v), np.float32) for k, v in taps.items()
  }


def init(method, data):
  own = method.init(
    jax.random.key(0), specs(data["student"]), specs(data["teacher"].taps)
  )
  return {**own, "artifact": data["artifact"]}


def test_the_main_loss_is_the_definition(data):
  method = kdep.Method(temperature=0.1, power=3.0)
  found, _ = method.losses(
    init(method, data), data["student"], data["teacher"], data["batch"]
  )
  teacher = np.float64(data["teacher"].taps["feature"])
  centred = teacher - teacher.mean(0)
  _, _, vt = np.linalg.svd(centred)
  largest = np.abs(vt).argmax(1)
  vt *= np.sign(vt[np.arange(D), largest])[:, None]
  z = centred @ vt[:WIDTH].T
  target = np.sign(z) * np.abs(z / 0.1) ** (1 / 3)
  want = np.mean((data["student"]["feature"] - target) ** 2)
  assert set(found) == {"feature"}
  np.testing.assert_allclose(found["feature"], want, rtol=1e-4)
  error = method.metrics(
    init(method, data), data["student"], data["teacher"], data["batch"]
  )["feature_error"]
  ratio = float(error[0].sum() / error[1].sum())
  assert ratio == pytest.approx(want * WIDTH * ROWS / (target**2).sum(), 1e-4)


@pytest.mark.parametrize("name", ALIGNERS)
def test_every_aligner_gives_a_gradient(name, data):
  method = kdep.Method(align={"name": name})
  variables = init(method, data)
  learnt = variables.get("params", {})
  assert bool(learnt) == (name in HEADED)
  assert method.artifact_tap in (None, "feature")
  if method.artifact_taps:
    whole = {**data["whole"], "rows": np.float32(ROWS)}
    whole = method.refined("feature", whole, specs(data["teacher"].taps))
    variables["artifact"] = {"feature": whole}

  def loss(feature, params):
    taps = {**data["student"], "feature": feature}
    own = {**variables, "params": params}
    return method.losses(own, taps, data["teacher"], data["batch"])[0][
      "feature"
    ]

  feature = data["student"]["feature"]
  value, grads = jax.value_and_grad(loss, (0, 1))(feature, learnt)
  assert np.isfinite(value) and value > 0
  for grad in jax.tree.leaves(grads):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0


@pytest.mark.parametrize("term", sorted(kdep.TAPS))
def test_every_term_reads_the_taps_that_it_names(term, data):
  method = kdep.Method(terms=(term,))
  (phase,) = method.phases()
  student = {k: data["student"][k] for k in phase.needs.student}
  taught = {k: data["teacher"].taps[k] for k in phase.needs.teacher}
  found, _ = method.losses(
    init(method, data), student, Teacher(taught, None), data["batch"]
  )
  assert list(found) == [term]
  assert found[term].shape == () and float(found[term]) > 0


def test_the_classifier_is_trained_only_if_a_term_reads_it():
  (phase,) = kdep.Method(terms=("feature",)).phases()
  assert phase.frozen == ("student/head",)
  (phase,) = kdep.Method(terms=("feature", "kl")).phases()
  assert phase.frozen == ()


def test_mistakes_are_named(data):
  with pytest.raises(ValueError, match=r"no loss term \['nst'\]"):
    kdep.Method(terms=("feature", "nst"))
  with pytest.raises(ValueError, match="at least one of"):
    kdep.Method(terms=())
  with pytest.raises(ValueError, match="temperature=-1"):
    kdep.Method(temperature=-1)
  method = kdep.Method(terms=("kl",))
  fewer = {**data["student"], "logits": np.zeros((ROWS, 3), np.float32)}
  with pytest.raises(ValueError, match="student has 3 and the teacher 5"):
    method.init(jax.random.key(0), specs(fewer), specs(data["teacher"].taps))
  with pytest.raises(ValueError, match="align has no 'svdd'"):
    kdep.Method(align={"name": "svdd"}).phases()[0]
    init(kdep.Method(align={"name": "svdd"}), data)


def test_supervised_has_one_term(data):
  method = supervised.Method()
  found, _ = method.losses(
    {}, data["student"], Teacher({}, None), data["batch"]
  )
  logits = np.float64(data["student"]["logits"])
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  want = -log_p[np.arange(ROWS), data["batch"].label].mean()
  np.testing.assert_allclose(found["ce"], want, rtol=1e-5)
  hits, ones = method.metrics(
    {}, data["student"], Teacher({}, None), data["batch"]
  )["accuracy"]
  want = (logits.argmax(1) == data["batch"].label).mean()
  assert float(hits.sum() / ones.sum()) == pytest.approx(want)
  with pytest.raises(ValueError, match="one loss term ce"):
    supervised.Method(terms=("ce", "kl"))


def test_steps_are_split_over_phases():
  (only,) = phases.stretches(kdep.Method(), 10)
  assert (only.start, only.stop) == (0, 10)
  with pytest.raises(ValueError, match="steps=0 leaves no step"):
    phases.stretches(kdep.Method(), 0)


def test_taps_and_parameters_are_checked_before_step_0():
  (phase,) = kdep.Method(terms=("fsp",)).phases()
  have = specs({name: np.zeros(1) for name in kdep.STAGES})
  with pytest.raises(ValueError, match=r"teacher taps \['stage2', 'stage4'\]"):
    few = {k: have[k] for k in ("stage1", "stage3")}
    phases.check_taps(phase, have, few, interfaces.TeacherSource())
  params = {"student": {"stage1": {"kernel": 1}}}
  typo = phase.__class__("x", None, phase.needs, trainable=("student/stag1",))
  with pytest.raises(ValueError, match="'student/stag1', which names no"):
    phases.check_trainable(typo, params)
