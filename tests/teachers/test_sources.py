import jax
import numpy as np
import pytest

from kd_jax.align import basis
from kd_jax.teachers import none, online, random
from kd_jax.types import Batch

TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 8), "stem_width": 4}


@pytest.fixture(scope="module")
def teacher():
  source, variables = random.load("resnet18", "", TINY)
  image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  batch = Batch(image, np.zeros(2, np.int32), np.ones(2, np.float32))
  return source, {"teacher": variables, "artifact": {}}, batch


def test_online_taps_are_those_of_the_network_in_evaluation_mode(teacher):
  source, frozen, batch = teacher
  found = source(frozen, batch)
  want = source.model.apply(frozen["teacher"], batch.image, train=False)
  assert set(found.taps) == set(want)
  for name, value in want.items():
    np.testing.assert_array_equal(found.taps[name], value)
  assert np.ptp(found.taps["feature"]) > 0


def test_resume_continues_and_lets_gradients_through(teacher):
  source, frozen, batch = teacher
  found = source(frozen, batch)
  again = found.resume("stage4", found.taps["stage3"])
  np.testing.assert_allclose(
    again["logits"], found.taps["logits"], rtol=1e-5, atol=1e-6
  )

  def through(x):
    return found.resume("stage4", x)["feature"].sum()

  assert np.abs(jax.grad(through)(found.taps["stage3"])).max() > 0

  def outside(image):
    return source(frozen, batch.replace(image=image)).taps["feature"].sum()

  assert np.abs(jax.grad(outside)(batch.image)).max() == 0


def test_a_tap_is_the_same_alone_and_in_front_of_a_loss():
  """As code for training is compiled, where loops are fused."""
  options = {"xla_backend_optimization_level": 3}
  fields = {**TINY, "channels": (8, 8, 16, 24), "stem_type": "cifar"}
  source, variables = random.load("resnet18", "", fields)
  image = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
  batch = Batch(image, np.zeros(20, np.int32), np.ones(20, np.float32))
  frozen, state = {"teacher": variables, "artifact": {}}, basis.init(24)

  def compiled(function, *args):
    program = jax.jit(function).lower(*args).compile(options)
    return program(*args), program.as_text()

  def alone(frozen, image):
    return source.model.apply(frozen["teacher"], image, train=False)["feature"]

  def inside(state, frozen, batch):
    feature = source(frozen, batch).taps["feature"]
    return basis.update(state, feature, batch.mask)

  feature, plain = compiled(alone, frozen, image)
  found, text = compiled(inside, state, frozen, batch)
  want, _ = compiled(basis.update, state, feature, batch.mask)
  assert np.ptp(want.total) > 0
  # The condition that keeps XLA from fusing the tap with the loss is there.
  assert " conditional(" in text and " conditional(" not in plain
  # Two programs: on some CPUs float32 sums are made in another order.
  largest = np.abs(feature).max()
  for got, expected in ((found.shift, want.shift), (found.total, want.total)):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * largest)
  (got,), (expected,) = found.scatter, want.scatter
  near = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max()}
  np.testing.assert_allclose(got, expected, **near)


def test_random_weights_are_float32_and_always_the_same(teacher):
  leaves = jax.tree.leaves(teacher[1]["teacher"])
  again = jax.tree.leaves(random.load("resnet18", "", TINY)[1])
  for one, two in zip(leaves, again, strict=True):
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, two)


def test_no_teacher_has_no_taps():
  source, variables = none.load("", "", {})
  assert source({}, None).taps == {} and variables == {}
  assert not source.can_resume


def test_weights_are_required_or_refused():
  with pytest.raises(ValueError, match="'resnet50' has no weights"):
    online.load("resnet50", "", {})
  with pytest.raises(ValueError, match="loads no weights, and got 'x.pth'"):
    random.load("resnet50", "x.pth", {})
