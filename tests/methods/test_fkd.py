"""FKD, FerKD and FKD without labels against NumPy and the authors' figures."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.methods import ferkd, fkd, fkd_ssl
from kd_jax.train import phases
from kd_jax.types import Batch, Teacher

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RNG = np.random.default_rng(0)


def batch(label):
  n = len(label)
  image = np.zeros((n, 2, 2, 3), np.float32)
  return Batch(image, np.asarray(label, np.int32), np.ones(n, np.float32))


@functools.partial(jax.jit, static_argnames="method")
def run(method, student, teacher, seen):
  """(loss, target) of one batch of logits."""
  taught = Teacher({"logits": teacher}, None)
  found, _ = method.losses({}, {"logits": student}, taught, seen)
  return found["soft"], method.target(taught, seen)


def soft(method, student, teacher, label=(-1,)):
  label = np.resize(label, len(student))
  return run(method, student, teacher, batch(label))[0]


def target(method, q, label):
  return run(method, np.zeros_like(q), np.log(q), batch(label))[1]


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


KINDS = {
  "ms5": {"name": "marginal", "dtype": "float32"},
  "mr5": {"name": "marginal", "dtype": "float32", "recover": "renorm"},
  "hard": {"name": "hard"},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("temperature", [1, 2])
def test_loss_and_gradient_are_the_authors(kind, temperature):
  golden, stored = (
    np.load(GOLDEN / f"fkd_{name}.npz") for name in ("loss", "label_quant")
  )
  case = f"{kind}_T{temperature}"
  codec = resolve.build("codecs", "Codec", KINDS[kind])
  encoded = codec.encode({}, {"logits": stored["logits"]})
  teacher = codec.decode({}, encoded, {"logits": (1000,)})["logits"]
  method = fkd.Method(temperature=float(temperature))
  loss, grad = jax.value_and_grad(lambda z: soft(method, z, teacher))(
    golden["student_logits"]
  )
  assert float(loss) == pytest.approx(float(golden[f"loss_{case}"]), abs=4e-6)
  if f"grad_{case}" in golden:
    np.testing.assert_allclose(grad, golden[f"grad_{case}"], 0, 6e-8)


def test_temperatures_and_labels():
  student, teacher = np.float32(RNG.normal(size=(2, 6, 5)) * 3)
  method = fkd.Method(
    terms=("soft", "ce"), temperature=2.0, teacher_temperature=4.0
  )
  q = np.exp(log_softmax(teacher / 4))
  want = -(q * log_softmax(student / 2)).sum(-1).mean()
  taps = Teacher({"logits": jnp.asarray(teacher)}, None)
  labelled = batch([0, 1, -1, 3, 4, 0])
  found, stats = method.losses({}, {"logits": student}, taps, labelled)
  np.testing.assert_allclose(found["soft"], want, rtol=1e-5)
  rows = -log_softmax(student)[[0, 1, 3, 4, 5], [0, 1, 3, 4, 0]]
  np.testing.assert_allclose(found["ce"], rows.mean(), rtol=1e-5)
  assert stats == {} and method.reads_labels and not fkd.Method().reads_labels


def test_figures_of_an_evaluation():
  student = jnp.eye(4)[np.array([0, 1, 2, 3])]
  taught = Teacher({"logits": jnp.eye(4)[np.array([0, 1, 2, 0])]}, None)
  found = fkd.Method().metrics(
    {}, {"logits": student}, taught, batch([0, 2, -1, 3])
  )
  figures = {k: [float(x.sum()) for x in v] for k, v in found.items()}
  assert figures == {"accuracy": [2, 3], "agreement": [3, 4]}
  from_bank = fkd.Method().metrics(
    {}, {"logits": student}, Teacher({}, None), batch([0, 2, -1, 3])
  )
  assert set(from_bank) == {"accuracy"}


def test_phases_of_a_recipe():
  method = fkd.Method(single_first=5 / 300, single_last=3 / 300)
  found = phases.stretches(method, 3000)
  assert [(s.start, s.stop) for s in found] == [
    (0, 50),
    (50, 2970),
    (2970, 3000),
  ]
  assert [s.phase.data for s in found] == [
    (("num_crops", 1),),
    (),
    (("num_crops", 1),),
  ]
  assert not any(s.phase.fresh_opt for s in found)
  (only,) = phases.stretches(fkd.Method(), 10)
  assert (only.phase.name, only.phase.needs.teacher) == (
    "fkd/crops",
    ("logits",),
  )


def probabilities(top):
  """Four classes; the teacher gives `top` to class 1."""
  rest = (1 - np.asarray(top)) / 3
  q = np.stack([rest, top, rest, rest], -1)
  return np.float32(q)


def test_ferkd_calibrates_every_crop():
  q = probabilities([0.3, 0.4, 0.6, 0.6, 0.99])
  label = np.array([1, 2, 2, -1, 1])
  method = ferkd.Method(low=0.35, mid=0.5, high=0.9, smoothing=0.3)
  found = target(method, q, label)
  want = np.stack([0 * q[0], [0.1, 0.1, 0.7, 0.1], q[2], q[3], 0 * q[4]])
  np.testing.assert_allclose(found, want, atol=1e-6)
  student = np.float32(RNG.normal(size=(5, 4)))
  loss = soft(method, student, np.log(q), label)
  rows = -(want * log_softmax(student)).sum(-1)
  np.testing.assert_allclose(loss, rows.sum() / 3, rtol=1e-5)
  by_label = ferkd.Method(low=0.1, mid=0.2, confidence="label", smoothing=0.0)
  found = target(by_label, q, label)
  # The label's probability is .2 and .13 in the crops of class 2.
  sure = [[0, 0, 1, 0], [0, 0, 1, 0]]
  want = np.stack([q[0], *sure, 0 * q[3], 0 * q[4]])
  np.testing.assert_allclose(found, want, atol=1e-6)
  assert method.reads_labels and set(method.terms) == {"soft"}
  q = probabilities([0.4, 0.4, 0.6, 0.7, 0.8])
  unlabelled = target(method, q, [-1] * 5)
  np.testing.assert_allclose(unlabelled.sum(-1), [0, 0, 1, 1, 1], atol=1e-6)


def test_ferkd_that_keeps_all_is_fkd():
  student, teacher = np.float32(RNG.normal(size=(2, 6, 5)))
  keeps = ferkd.Method(low=0.0, mid=0.0, high=1.0)
  np.testing.assert_array_equal(
    soft(keeps, student, teacher, (1,)), soft(fkd.Method(), student, teacher)
  )


def test_embeddings_are_compared_at_unit_length():
  student, teacher = np.float32(RNG.normal(size=(2, 6, 8)) * 3)
  s, t = (
    x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (student, teacher)
  )
  q = np.exp(log_softmax(t / 0.2))
  want = -(q * log_softmax(s / 0.2)).sum(-1).mean()
  method = fkd_ssl.Method()
  np.testing.assert_allclose(soft(method, student, teacher), want, rtol=1e-5)
  taught = Teacher({"logits": jnp.asarray(teacher)}, None)
  found = method.metrics({}, {"logits": student}, taught, batch([-1] * 6))
  np.testing.assert_allclose(found["cosine"][0], (s * t).sum(-1), rtol=1e-4)
  grad = jax.grad(lambda z: soft(method, z, teacher))(np.zeros_like(student))
  assert np.isfinite(grad).all()


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: fkd.Method(terms=("ce",)), "needs soft; got"),
    (lambda: fkd.Method(terms=("soft", "kl")), "fkd has the loss terms"),
    (lambda: fkd_ssl.Method(terms=("soft", "ce")), "fkd_ssl has the loss"),
    (lambda: fkd.Method(temperature=0.0), "both must be positive"),
    (lambda: fkd.Method(single_last=1.0), "together below 1"),
    (lambda: ferkd.Method(low=0.5), "0 <= low <= mid <= high <= 1"),
    (lambda: ferkd.Method(smoothing=1.0), "method.smoothing is 1.0"),
    (lambda: ferkd.Method(confidence="mean"), "confidence is 'mean'"),
  ],
)
def test_errors(make, match):
  with pytest.raises(ValueError, match=match):
    make()


def test_other_classes_are_named():
  specs = [
    {"logits": jax.ShapeDtypeStruct((1, n), np.float32)} for n in (10, 1000)
  ]
  with pytest.raises(ValueError, match="student has 10 and the teacher 1000"):
    fkd.Method().init(jax.random.key(0), *specs)
