"""What the train step does beside the trajectory."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from kd_jax import losses
from kd_jax.teachers import none
from kd_jax.train import loop
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.types import Batch, Needs, Phase, TrainState


class Net(nn.Module):
  """No batch normalisation, so microbatches cannot matter."""

  @nn.compact
  def __call__(self, x, *, train, **_):
    x = nn.tanh(nn.Conv(4, (3, 3), name="stage1")(x)).mean((1, 2))
    return {"feature": x, "logits": nn.Dense(3, name="head")(x)}


def classify(variables, taps, teacher, batch):
  return {"ce": losses.cross_entropy(taps["logits"], batch.label)}, {}


def one_step(phase=None, steps=1, **settings):
  phase = phase or Phase("all", classify, Needs())
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
  label = np.arange(8, dtype=np.int32) % 3
  batch = Batch(image=image, label=label, mask=np.ones(8, np.float32))
  params = Net().init(jax.random.key(0), np.zeros((1, 6, 6, 3)), train=False)
  params = {"student": params["params"]}
  tx = Optim(lr=1.0).transform(10)
  state = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    stats={"student": {}, "method": {}},
    opt=tx.init(step_lib.trainable(params, phase)),
    ema=jax.tree.map(np.array, params) if settings.get("ema_decay") else {},
    rng=jax.random.key_data(jax.random.key(0)),
  )
  settings = step_lib.Settings(weights={"ce": 1.0}, **settings)
  step = step_lib.make_train_step(Net(), none.Source(), phase, tx, settings)
  before = jax.tree.map(np.array, params)
  for _ in range(steps):
    state, found = step(state, {"artifact": {}}, batch)
  return before, jax.tree.map(np.asarray, state), found


def test_microbatches_give_the_gradient_of_the_whole_batch():
  _, whole, a = one_step()
  before, parts, b = one_step(accum_steps=4)
  # Four partial sums in float32 instead of one; the step moves by over 1e-3.
  assert float(a["loss/ce"]) == pytest.approx(float(b["loss/ce"]), rel=1e-5)
  for x, y, old in zip(
    *map(jax.tree.leaves, (whole.params, parts.params, before)), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert np.abs(x - old).max() > 1e-3


def test_frozen_parameters_stay_and_are_not_in_the_optimizer():
  phase = Phase("head", classify, Needs(), frozen=("student/stage1",))
  before, state, found = one_step(phase)
  kept = [p["student"]["stage1"]["kernel"] for p in (before, state.params)]
  assert np.array_equal(*kept)
  moved = [p["student"]["head"]["kernel"] for p in (before, state.params)]
  assert not np.array_equal(*moved)
  shapes = {x.shape for x in jax.tree.leaves(state.opt)}
  assert (3, 3, 3, 4) not in shapes and (4, 3) in shapes
  assert found["has_grad"].tolist() == [True, True]


def test_moving_average_is_behind_the_parameters():
  before, state, _ = one_step(ema_decay=0.75)
  old, new, ema = (
    tree["student"]["head"]["kernel"]
    for tree in (before, state.params, state.ema)
  )
  np.testing.assert_allclose(ema, 0.75 * old + 0.25 * new, rtol=1e-5)
  assert np.abs(ema - old).max() > 1e-4


@pytest.mark.parametrize(
  ("value", "message"),
  [(float("nan"), "'ce' is nan at step 7"), (0.0, "'ce' is exactly zero")],
)
def test_unusable_loss_terms_stop_the_run(value, message):
  with pytest.raises(ValueError, match=message):
    loop.check_terms(7, {"loss/ce": value, "grad_norm": 0.0})


def test_a_parameter_without_gradient_is_named():
  def head_only(variables, taps, teacher, batch):
    taps = {"logits": jax.lax.stop_gradient(taps["logits"])}
    return classify(variables, taps, teacher, batch)

  _, _, found = one_step(Phase("none", head_only, Needs()))
  assert not found["has_grad"].any()
  with pytest.raises(ValueError, match="1 trainable parameters.*student/a"):
    loop.check_gradients({"student/a": False, "student/b": True})


def test_norm_and_zeros_of_gradients_of_any_shape():
  rng = np.random.default_rng(0)
  shapes = {"a": (3, 3, 2, 5), "b": (5,), "c": (2, 5), "d": (5,), "e": ()}
  shapes |= {"f": (7,), "g": (5,), "h": (2, 5), "i": (), "j": (1,)}
  grads = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
  for zero in ("d", "h", "i"):
    grads[zero] *= 0
  grads["c"][:] = 0
  grads["c"][1, 3] = -1e-18
  norm, has = jax.jit(step_lib.sizes_of)(grads)
  want = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in grads.values()))
  np.testing.assert_allclose(norm, want, rtol=1e-6)
  assert has.tolist() == [name not in "dhi" for name in grads]
  _, has = step_lib.sizes_of({"a": grads["a"] * np.nan, "b": grads["d"]})
  assert has.tolist() == [True, False]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("decay_all", [True, False])
def test_decay_of_vectors_can_be_switched_off(name, decay_all):
  optim = Optim(name=name, lr=0.1, weight_decay=0.5, decay_all=decay_all)
  tx = optim.transform(10)
  params = {
    "kernel": np.ones((2, 2), np.float32),
    "bias": np.ones(2, np.float32),
  }
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = tx.update(zero, tx.init(params), params)
  assert np.all(np.asarray(updates["kernel"]) < 0)
  assert np.any(np.asarray(updates["bias"]) < 0) == decay_all


def test_schedules():
  step = Optim(lr=0.3, schedule="step", decay_every=10, gamma=0.1)
  assert step.rate(30)(9) == pytest.approx(0.3)
  assert step.rate(30)(10) == pytest.approx(0.03)
  warm = Optim(lr=1.0, schedule="cosine", warmup=10).rate(110)
  assert [float(warm(s)) for s in (0, 5, 10, 60, 110)] == pytest.approx(
    [0, 0.5, 1, 0.5, 0], abs=1e-6
  )
  with pytest.raises(ValueError, match="optim.warmup=10 leaves no step"):
    Optim(warmup=10).rate(10)
  with pytest.raises(ValueError, match="optim.name is 'adam'.*sgd"):
    Optim(name="adam")
