"""Batch statistics measured anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kd_jax
from kd_jax import trees
from kd_jax.transfer.precise_bn import Precise
from kd_jax.types import Batch, Needs, Phase

TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4), "stem_width": 4}


def phase(train_from="stem"):
  return Phase("p", lambda *_: ({}, {}), Needs(), train_from=train_from)


@pytest.fixture(scope="module")
def network():
  model = kd_jax.create_model("resnet18", num_classes=0, **TINY)
  image = jnp.zeros((1, 32, 32, 3))
  variables = jax.jit(model.init)(jax.random.key(0), image)
  rng = np.random.default_rng(1)
  images = rng.random((3, 4, 32, 32, 3), np.float32)
  images += np.arange(3, dtype=np.float32)[:, None, None, None, None]
  batches = [Batch(jnp.asarray(x), jnp.zeros(4), jnp.ones(4)) for x in images]
  return model, variables, images, batches


def test_the_first_layer_sees_the_moments_of_all_images(network):
  model, variables, images, batches = network
  found = Precise(model, phase())(variables, batches)
  stem = variables["params"]["stem"]
  mean = np.asarray(model.mean, np.float32)
  x = (images.reshape(-1, 32, 32, 3) - mean) / np.asarray(model.std, np.float32)
  y = jax.lax.conv_general_dilated(
    x,
    stem["conv1"]["kernel"],
    (2, 2),
    ((3, 3), (3, 3)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  got = found["batch_stats"]["stem"]["bn1"]
  y = np.asarray(y, np.float64)
  np.testing.assert_allclose(got["mean"], y.mean((0, 1, 2)), rtol=1e-4)
  np.testing.assert_allclose(got["var"], y.var((0, 1, 2)), rtol=1e-4)
  # The means of the three batches differ, which is part of the variance.
  within = y.reshape(3, -1, y.shape[-1]).var(1).mean(0)
  assert (got["var"] > 1.2 * within).all()


def test_equal_batches_give_what_a_running_average_tends_to(network):
  model, variables, _, batches = network
  found = Precise(model, phase())(variables, [batches[1]] * 2)
  running = variables
  step = jax.jit(
    lambda v: model.apply(
      v, batches[1].image, train=True, mutable=["batch_stats"]
    )[1]
  )
  for _ in range(200):
    running = {**running, **step(running)}
  want = trees.flatten(running["batch_stats"])
  got = trees.flatten(found["batch_stats"])
  assert set(got) == set(want) and len(got) > 20
  counts = 4.0 * 16 * 16
  for path, value in want.items():
    # Running variances are unbiased; the smallest map here has 4 x 1 values.
    rtol = 1e-3 if path.endswith("mean") else 0.4
    np.testing.assert_allclose(
      got[path], value, rtol=rtol, atol=1e-4, err_msg=path
    )
  biased = want["stem/bn1/var"] * (counts - 1) / counts
  np.testing.assert_allclose(got["stem/bn1/var"], biased, rtol=1e-4)


def test_stages_that_do_not_use_their_batch_keep_their_statistics(network):
  model, variables, _, batches = network
  found = Precise(model, phase("stage3"))(variables, batches[:1])
  before = trees.flatten(variables["batch_stats"])
  for path, value in trees.flatten(found["batch_stats"]).items():
    early = path.startswith(("stem", "stage1", "stage2"))
    assert np.array_equal(value, before[path]) == early, path


def test_no_batch_is_an_error(network):
  model, variables, _, _ = network
  with pytest.raises(ValueError, match="at least one batch"):
    Precise(model, phase())(variables, [])
