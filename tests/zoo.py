"""What every model family is held to; one test file per family calls it."""

from __future__ import annotations

import functools
import json
import math
from unittest import mock

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kd_jax import convert, models, resolve, trees
from kd_jax.models.backbone import variable_shapes
from kd_jax.types import STAGES

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FIELDS = {"logits": "logits", "pre_logits": "pooled"}
CONV_FIELDS = {
  **FIELDS,
  "stage_0": "stem",
  **{f"stage_{k}": f"stage{k}" for k in (1, 2, 3, 4)},
}


def shapes(model, **call):
  """Shapes of (taps, variables); nothing is computed."""
  image = jax.ShapeDtypeStruct((2, *model.example_size, 3), jnp.float32)
  with zeros():
    return jax.eval_shape(
      lambda key, x: model.init_with_output(key, x, **call),
      jax.random.key(0),
      image,
    )


def zeros():
  """Half of the cost of tracing a model is its random initialisation."""
  whole = nn.Module.param

  def param(self, name, init, shape, *args, **kwargs):
    del init
    return whole(self, name, nn.initializers.zeros, shape, *args, **kwargs)

  return mock.patch.object(nn.Module, "param", param)


def drawn(model):
  """Variables without the cost of compiling the initialisation."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    if leaf.ndim > 1:
      scale = math.sqrt(2 / math.prod(leaf.shape[:-1]))
      return np.float32(scale * rng.normal(size=leaf.shape))
    return np.float32(rng.uniform(0.5, 1.5, leaf.shape))

  with zeros():
    flat = trees.flatten(variable_shapes(model))
  return trees.unflatten({k: draw(k, v) for k, v in flat.items()})


def check_golden(case, fields, features=None, **overrides):
  """Outputs of timm, and the bit-exact way back.

  Args:
    case: name of a file in golden/timm.
    fields: {field of the file: tap}.
    features: taps -> timm's forward_features; None leaves it out.
    **overrides: of the model, beside those that timm was given.

  Returns:
    (model, variables, taps).
  """
  meta, arrays = gw.load(case)
  fields_of_timm = {**meta["create_kwargs"], **overrides}
  model = models.create_model(meta["arch"], **RAW, **fields_of_timm)
  state_dict = gw.make_state_dict(meta)
  with zeros():
    variables = convert.from_timm(model, state_dict)
  taps = jax.jit(model.apply)(variables, gw.make_input(meta))
  for field, tap in fields.items():
    gw.check(meta, arrays, field, taps[tap])
  if features is not None:
    gw.check(meta, arrays, "features", features(taps))
  assert taps["pooled"].shape[1] == model.num_features
  with zeros():
    back = convert.to_timm(model, variables)
  assert set(back) == set(state_dict)
  for name, array in state_dict.items():
    np.testing.assert_array_equal(back[name], array, strict=True)
  return model, variables, taps


def tuples(value):
  """What JSON has as lists; also inside of dictionaries."""
  if isinstance(value, dict):
    return {k: tuples(v) for k, v in value.items()}
  return tuple(map(tuples, value)) if isinstance(value, list) else value


def check_preprocessing(family):
  """The facts of timm's default checkpoints, where the table has them."""
  text = (gw.FOLDER / "preprocessing.json").read_text()
  known = json.loads(text)
  names = set(resolve.symbol("models", family, "VARIANTS")) & set(known)
  assert names
  for name in names:
    model = models.create_model(name)
    for field, want in known[name].items():
      got = getattr(model, field)
      want = tuple(want) if isinstance(want, list) else want
      assert got == want, (name, field)


class Tiny:
  """A small member of a family with drawn weights, compiled once."""

  def __init__(self, name, **fields):
    self.name, self.fields = name, fields
    self.model = models.create_model(name, **{"num_classes": 6, **fields})
    self.variables = drawn(self.model)
    size = self.model.example_size
    rng = np.random.default_rng(0)
    self.images = rng.uniform(size=(4, *size, 3)).astype("float32")
    self.run = jax.jit(
      self.model.apply,
      static_argnames=("train", "begin", "end", "train_from", "mutable"),
    )

  @functools.cached_property
  def taps(self):
    """All outputs without training."""
    return self.run(self.variables, self.images)

  def check_names(self):
    """Parameters lie under the stages; no other top-level names but known."""
    top = set(self.variables["params"])
    assert set(STAGES) - {"head"} <= top <= {*STAGES, "neck", "pool"}
    assert self.taps["logits"].shape == (4, 6)
    assert self.taps["pooled"].shape == (4, self.model.num_features)
    assert {*STAGES[:-1], "feature", "pooled", "logits"} <= set(self.taps)
    if "feature_map" in self.taps:
      before = np.asarray(self.taps["feature_map"])
      mean = before.mean((1, 2))
      np.testing.assert_allclose(mean, self.taps["feature"], 1e-4, 1e-5)
      assert before.shape == self.taps["stage4"].shape and before.min() < 0

  def check_chain(self, near=1e-4):
    """Stage by stage is the whole."""

    @jax.jit
    def chain(variables, x):
      found = {}
      for stage in STAGES:
        taps = self.model.apply(variables, x, begin=stage, end=stage)
        assert not set(taps) & set(found)
        found |= taps
        x = taps.get(stage)
      return found

    found = chain(self.variables, self.images)
    assert set(found) == set(self.taps)
    for name, value in found.items():
      expected = self.taps[name]
      # Sums in another order differ by the largest terms' rounding.
      largest = near * max(1, np.abs(expected).max())
      np.testing.assert_allclose(value, expected, rtol=near, atol=largest)

  def check_gradients(self, invisible=()):
    """Every parameter gets a finite, non-zero gradient in training.

    Args:
      invisible: suffixes of paths to which the network is invariant.
    """
    weights = np.random.default_rng(3).normal(size=(4, 6)).astype("float32")
    rest = {k: v for k, v in self.variables.items() if k != "params"}

    def loss(params):
      taps, _ = self.model.apply(
        {"params": params, **rest},
        self.images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
      )
      # Unequal weights: a sum over the batch is constant after normalisation.
      return (taps["logits"] * weights).sum()

    grads = jax.jit(jax.grad(loss))(self.variables["params"])
    for path, grad in trees.flatten(jax.device_get(grads)).items():
      assert np.isfinite(grad).all(), path
      assert np.abs(grad).max() > 0 or path.endswith(tuple(invisible)), path

  def check_bfloat16(self, error):
    """bfloat16 taps, float32 state, near the float32 result.

    Args:
      error: largest relative L2 error of 'pooled'.
    """
    model = self.model.clone(dtype=jnp.dtype("bfloat16"))
    taps, variables = shapes(model)
    assert {a.dtype for a in taps.values()} == {jnp.dtype(jnp.bfloat16)}
    leaves = jax.tree.leaves(variables)
    assert {a.dtype for a in leaves} == {jnp.dtype(jnp.float32)}
    got = jax.jit(model.apply)(self.variables, self.images)["pooled"]
    want = np.asarray(self.taps["pooled"], np.float64)
    gap = np.linalg.norm(np.asarray(got, np.float64) - want)
    assert gap <= error * np.linalg.norm(want)
