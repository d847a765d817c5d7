"""Figures that others' released code gives, and networks' taps for methods."""

import pathlib

import jax
import numpy as np

from kd_jax.types import Batch, Teacher

GOLDEN = pathlib.Path(__file__).parent / "golden"
LABELS = np.int32([0, 1, 2, 3, -1, 0])
RNG = np.random.default_rng(0)


def arrays(file):
  """{'case/in/name': array}."""
  return dict(np.load(GOLDEN / f"{file}.npz"))


def nhwc(x):
  """Maps of PyTorch in this package's layout."""
  return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def check(golden, case, loss, *, near=2e-6, **inputs):
  """`loss` of the inputs by name, against value and gradients of a case.

  In float64, as the figures are; gradients are float32, within `near` of the
  largest.
  """
  with jax.enable_x64(True):
    value, grads = jax.jit(jax.value_and_grad(lambda x: loss(**x)))(
      {k: nhwc(np.float64(v)) for k, v in inputs.items()}
    )
  want = golden[f"{case}/loss"]
  np.testing.assert_allclose(value, want, rtol=2e-6)
  assert abs(want) > 1e-4
  names = [k for k in golden if k.startswith(f"{case}/grad/")]
  assert names
  for name in names:
    grad = nhwc(golden[name])
    scale = np.abs(grad).max()
    assert scale > 0
    np.testing.assert_allclose(
      grads[name.rpartition("/")[2]], grad, rtol=0, atol=near * scale
    )


def given(golden, case):
  """The inputs of a case by name."""
  head = f"{case}/in/"
  return {k.removeprefix(head): v for k, v in golden.items() if head in k}


def network(widths, classes, *, size=16, rows=6):
  """Taps of a network with maps."""
  found = {
    f"stage{i + 1}": RNG.normal(size=(rows, size >> i, size >> i, width))
    for i, width in enumerate(widths)
  }
  found["feature"] = RNG.normal(size=(rows, widths[-1]))
  found["pooled"] = np.maximum(found["feature"], 0)
  found["logits"] = 2 * RNG.normal(size=(rows, classes))
  return {k: np.float32(v) for k, v in found.items()}


STUDENT = network((4, 6, 8, 10), 5)
TEACHER = network((5, 8, 8, 12), 5)
BATCH = Batch(np.zeros((6, 8, 8, 3), np.float32), LABELS, np.ones(6))


def specs(taps):
  """Their shapes."""
  return {
    k: jax.ShapeDtypeStruct(np.shape(v), np.float32) for k, v in taps.items()
  }


def made(method, student=None, teacher=None, key=0):
  """Fresh variables of a method."""
  sides = specs(student or STUDENT), specs(teacher or TEACHER)
  return dict(jax.jit(lambda k: method.init(k, *sides))(jax.random.key(key)))


def learn(method, student=None, teacher=None, key=0, artifact=None):
  """(terms, new statistics, gradients) of a method that reads what it names.

  Gradients are {'taps': ..., 'params': ...}.
  """
  student, teacher = student or STUDENT, teacher or TEACHER
  (phase,) = method.phases()
  own = made(method, student, teacher, key)
  own["artifact"] = artifact or {}
  params = own.pop("params", {})
  taps = {k: student[k] for k in phase.needs.student}
  taught = Teacher({k: teacher[k] for k in phase.needs.teacher}, None)

  def total(taps, params):
    found, stats = phase.losses({**own, "params": params}, taps, taught, BATCH)
    return sum(found.values()), (found, stats)

  grad = jax.jit(jax.grad(total, (0, 1), has_aux=True))
  grads, (found, stats) = grad(taps, params)
  return found, stats, dict(zip(("taps", "params"), grads, strict=True))


def check_learns(method, terms, **how):
  """Every term is positive and every tap and parameter has a gradient."""
  found, stats, grads = learn(method, **how)
  assert set(found) == set(terms)
  assert all(np.shape(x) == () and float(x) > 0 for x in found.values())
  for grad in jax.tree.leaves(grads):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
  return found, stats, grads
