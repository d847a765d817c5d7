"""20 steps of KDEP against the authors' own code, through our train step."""

import dataclasses
import pathlib
from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import linen as nn

from kd_jax import losses, trees
from kd_jax.convert import rules
from kd_jax.models.resnet import resnet
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.types import Batch, Needs, Phase, Teacher, TrainState

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "kdep_trajectory.npz"
OPTIM = Optim(lr=0.05, momentum=0.9, weight_decay=5e-4)


class Net(nn.Module):
  """The golden's network, from the package's own blocks."""

  @nn.compact
  def __call__(self, x, *, train, **_):
    def block(channels, stride=1):
      return {
        "kind": "basic",
        "channels": channels,
        "width": channels,
        "groups": 1,
        "stride": stride,
        "dilation": 1,
        "first_dilation": 1,
        "drop_path": 0.0,
        "zero_init_last": False,
        "se_ratio": 0.0,
        "avg_down": False,
        "dtype": None,
      }

    conv = {"features": 8, "size": 3, "stride": 1}
    stem = resnet.Stem((("conv1", "bn1", conv),), None, name="stem")
    x = stem(x, train=train)
    plans = [(block(8),), (block(16, 2),), (block(32, 2), block(32))]
    for i, plan in enumerate(plans, 1):
      stage = resnet.Stage(plan, "", name=f"stage{i}")
      x, before = stage(x, train=train)
    feature = before.mean((1, 2))
    return {"feature": feature, "logits": nn.Dense(10, name="head")(feature)}


@dataclasses.dataclass(frozen=True)
class Stored:
  """A teacher whose aligned features come with the batch."""

  can_resume: ClassVar[bool] = False

  def __call__(self, frozen, batch):
    return Teacher(batch.teacher, None)


def regress(variables, taps, teacher, batch):
  return {"feature": losses.mse(taps["feature"], teacher.taps["target"])}, {}


PHASE = Phase("kdep", regress, Needs(), frozen=("student/head",))


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


AXES = {"conv": (2, 3, 1, 0), "linear": (1, 0)}


def variables_of(golden, prefix, dtype):
  """{timm name: array} -> variables, by the ResNet family's rules."""
  model = resnet.Model()
  flat = {}
  for theirs, ours, layout in rules.expanded(model):
    pattern = rules._pattern(theirs)
    for key, value in golden.items():
      match = pattern.fullmatch(key.removeprefix(f"{prefix}/"))
      if key.startswith(f"{prefix}/") and match:
        path = ours.format(**match.groupdict())
        axes = AXES.get(layout, tuple(range(value.ndim)))
        if len(axes) != value.ndim:  # a name that other members use otherwise
          continue
        flat[path] = value.transpose(axes).astype(dtype)
  return trees.unflatten(flat)


def start(golden, dtype, settings):
  variables = variables_of(golden, "init", dtype)
  params = {"student": variables["params"]}
  tx = OPTIM.transform(20)
  state = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    stats={"student": variables["batch_stats"], "method": {}},
    opt=tx.init(step_lib.trainable(params, PHASE)),
    ema={},
    rng=jax.random.key_data(jax.random.key(0)),
  )
  step = step_lib.make_train_step(Net(), Stored(), PHASE, tx, settings)
  return state, step


def batch_at(golden, index, dtype):
  image = golden["x"][index % 5].transpose(0, 2, 3, 1).astype(dtype)
  rows = len(image)
  return Batch(
    image=image,
    label=np.zeros(rows, np.int32),
    mask=np.ones(rows, np.float32),
    teacher={"target": golden["target"][index % 5].astype(dtype)},
  )


def run(golden, dtype, steps, settings=None):
  settings = settings or step_lib.Settings(weights={"feature": 3.0})
  state, step = start(golden, dtype, settings)
  found = []
  for index in range(steps):
    state, metrics = step(
      state, {"artifact": {}}, batch_at(golden, index, dtype)
    )
    found.append(jax.tree.map(np.asarray, metrics))
  return jax.tree.map(np.asarray, state), found


def assert_state(state, golden, prefix, dtype, tolerance):
  want = trees.flatten(variables_of(golden, prefix, dtype))
  got = trees.flatten(
    {"params": state.params["student"], "batch_stats": state.stats["student"]}
  )
  assert set(got) == set(want)
  for path, value in want.items():
    np.testing.assert_allclose(
      got[path], value, rtol=tolerance, atol=tolerance, err_msg=path
    )


@pytest.mark.slow
def test_twenty_steps_in_float64_equal_the_authors(golden):
  with jax.enable_x64(True):
    state, found = run(golden, np.float64, 20)
  total = [m["loss/total"] for m in found]
  mse = [m["loss/feature"] for m in found]
  assert total[0].dtype == np.float64
  np.testing.assert_allclose(total, golden["losses_f64"], rtol=1e-9)
  np.testing.assert_allclose(mse, golden["mse_f64"], rtol=1e-9)
  assert_state(state, golden, "final_f64", np.float64, 1e-9)
  assert np.abs(golden["losses_f64"][0] - golden["losses_f64"][19]) > 0.01


def test_first_steps_in_float32_equal_the_authors(golden):
  state, found = run(golden, np.float32, 1)
  assert_state(state, golden, "step1", np.float32, 1e-5)
  _, found = run(golden, np.float32, 5)
  total = [m["loss/total"] for m in found]
  np.testing.assert_allclose(total, golden["losses"][:5], rtol=1e-5)


def test_features_and_gradients_of_the_first_step(golden):
  variables = variables_of(golden, "init", np.float32)
  batch = batch_at(golden, 0, np.float32)

  def loss(params):
    taps, _ = Net().apply(
      {**variables, "params": params},
      batch.image,
      train=True,
      mutable=["batch_stats"],
    )
    value = 3 * losses.mse(taps["feature"], batch.teacher["target"])
    return value, taps["feature"]

  grads, feature = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
  np.testing.assert_allclose(feature, golden["feat_step0"], 1e-5, 1e-5)
  want = trees.flatten(variables_of(golden, "grad_step0", np.float32)["params"])
  got = trees.flatten(grads)
  assert len(want) == 33 and set(got) - set(want) == {
    "head/kernel",
    "head/bias",
  }
  for path, value in want.items():
    np.testing.assert_allclose(got[path], value, 1e-4, 1e-5, err_msg=path)


def test_moving_average_follows_the_parameters():
  params = {"w": np.float32(2.0)}
  ema = step_lib.average({"w": np.float32(1.0)}, params, 0.75)
  assert float(ema["w"]) == pytest.approx(1.25)
  assert step_lib.average({}, params, 0.75) == {}
