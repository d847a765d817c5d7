"""Batch normalisation in the convolutions in front of it."""

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import trees
from kd_jax.models import fold, fuse

CASES = (("resnet10t", {"channels": (8, 8, 16, 16), "stem_width": 8}),)
SLOW = (
  ("mobilenetv3_small_050", {}),
  ("test_byobnet", {}),
  ("mobilenetv4_hybrid_medium_075", {"channel_multiplier": 0.25}),
  ("regnety_002", {}),
  ("fastvit_sa12", {"layers": (1, 1, 1, 1)}),
)


def norms(run, *arguments):
  """How often the program takes a reciprocal square root."""
  return str(jax.make_jaxpr(run)(*arguments)).count("rsqrt")


@pytest.mark.parametrize(
  ("name", "fields"),
  [*CASES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)],
)
def test_outputs_stay(name, fields):
  tiny = zoo.Tiny(name, **fields)
  variables, context = fold.fold(tiny.model, tiny.variables)
  shapes = [jax.tree.map(jnp.shape, v) for v in (variables, tiny.variables)]
  assert shapes[0] == shapes[1]

  def run(images):
    with context():
      return tiny.model.apply(variables, images)

  taps = jax.jit(run)(tiny.images)
  for tap, want in tiny.taps.items():
    near = 1e-5 * float(np.abs(want).max())
    np.testing.assert_allclose(taps[tap], want, rtol=0, atol=near, err_msg=tap)
  before = norms(lambda x: tiny.model.apply(tiny.variables, x), tiny.images)
  stats = "batch_stats" in tiny.variables
  assert (
    norms(run, tiny.images) < before
    if stats
    else not before - norms(run, tiny.images)
  )


def test_what_it_computes():
  tiny = zoo.Tiny("resnet10t", channels=(8, 8, 8, 8), stem_width=8)
  variables, _ = fold.fold(tiny.model, tiny.variables)
  old, new = (trees.flatten(v) for v in (tiny.variables, variables))
  block = "stage1/block0"
  gain = old[f"params/{block}/bn1/scale"] / np.sqrt(
    old[f"batch_stats/{block}/bn1/var"] + 1e-5
  )
  kernel = f"params/{block}/conv1/kernel"
  np.testing.assert_allclose(new[kernel], old[kernel] * gain, rtol=1e-6)
  bias = f"params/{block}/bn1/bias"
  want = old[bias] - old[f"batch_stats/{block}/bn1/mean"] * gain
  np.testing.assert_allclose(new[bias], want, rtol=1e-5, atol=1e-6)


def test_what_others_read_stays():
  """The merged encoding of positions is one convolution, read twice."""
  tiny = families.FAMILIES["fastvit"].tiny()
  model, merged = fuse.merge(tiny.model, tiny.variables)
  variables, context = fold.fold(model, merged)
  old, new = (trees.flatten(v) for v in (merged, variables))
  same = {k for k in old if np.array_equal(old[k], new[k])}
  kernels = [k for k in same if k.endswith("kernel") and "/pos_emb/" in k]
  assert len(kernels) == 1 and len(same) < len(old)

  def run(images):
    with context():
      return model.apply(variables, images)

  taps = jax.jit(run)(tiny.images)
  for tap, want in tiny.taps.items():
    near = 1e-5 * float(np.abs(want).max())
    np.testing.assert_allclose(taps[tap], want, rtol=0, atol=near, err_msg=tap)


def test_single_pixels_are_products():
  tiny = zoo.Tiny("resnet10t", channels=(8, 8, 8, 8), stem_width=8)
  variables, context = fold.fold(tiny.model, tiny.variables)

  def run(images):
    with context():
      return tiny.model.apply(variables, images)

  kernels = trees.flatten(tiny.variables["params"]).items()
  wide = [k for k, v in kernels if v.ndim == 4 and v.shape[0] > 1]
  text = str(jax.make_jaxpr(run)(tiny.images))
  assert text.count("conv_general_dilated[") == len(wide)
  assert len(wide) < sum(v.ndim == 4 for _, v in kernels)
