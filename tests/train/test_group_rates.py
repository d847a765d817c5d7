"""Rates that differ between groups, and between runs of one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models, trees
from kd_jax.models.backbone import variable_shapes
from kd_jax.train import group_rates
from kd_jax.train.optim import Optim
from kd_jax.transfer.heads import fcn, light
from kd_jax.transfer.segmenter import Segmenter


@functools.cache
def paths(name, segmenter=False):
  model = models.create_model(name, num_classes=0 if segmenter else 10)
  if segmenter:
    heads = light.Head(num_classes=3, channels=8), fcn.Head(num_classes=3)
    model = Segmenter(model, *heads)
  flat = trees.flatten(variable_shapes(model)["params"])
  return tuple(f"student/{path}" for path in flat)


def deepest(name, marks, **kwargs):
  """{mark: depth} of the parameters below it, which must all agree."""
  found = group_rates.depths(paths(name, **kwargs))
  depths = {m: {d for p, d in found.items() if f"/{m}/" in p} for m in marks}
  assert all(len(values) == 1 for values in depths.values()), depths
  return {mark: values.pop() for mark, values in depths.items()}


def test_blocks_of_a_transformer_count_from_the_stem():
  blocks = [f"stage{1 + i // 3}/block{i}" for i in range(12)]
  name = "vit_tiny_patch16_224"
  found = deepest(name, ["stem", *blocks, "neck", "head"])
  assert [found[block] for block in blocks] == [*range(1, 13)]
  assert (found["stem"], found["neck"], found["head"]) == (0, 13, 13)


def test_blocks_of_a_resnet_count_through_the_stages():
  blocks = [f"stage{1 + i // 2}/block{i % 2}" for i in range(8)]
  found = deepest("resnet18", ["stem", *blocks, "head"])
  assert [found[block] for block in blocks] == [*range(1, 9)]
  assert (found["stem"], found["head"]) == (0, 9)


def test_what_lies_between_stages_belongs_to_the_next_block():
  found = deepest(
    "convnext_atto",
    ["stage1/block1", "stage2/downsample", "stage2/norm", "stage2/block0"],
  )
  assert list(found.values()) == [2, 3, 3, 3]


def test_blocks_of_a_mobilenet_have_two_numbers():
  blocks = [
    *("stage1/block1_1", "stage2/block2_0", "stage2/block2_2"),
    *("stage3/block3_3", "stage3/block4_0", "stage4/block6_0"),
  ]
  found = deepest("mobilenetv2_100", ["stem", *blocks, "neck", "head"])
  assert list(found.values()) == [0, 2, 3, 5, 9, 10, 16, 17, 17]


def test_backbones_of_segmenters_have_the_same_depths():
  bare = group_rates.depths(paths("resnet18"))
  found = group_rates.depths(paths("resnet18", segmenter=True))
  for path, depth in bare.items():
    if not path.startswith("student/head"):
      assert found[path.replace("student/", "student/backbone/")] == depth
  heads = {p: d for p, d in found.items() if "/backbone/" not in p}
  assert len(heads) > 10 and set(heads.values()) == {9}


def test_factors_are_those_of_layer_wise_decay():
  """decay^(L + 1 - i) of BEiT's and timm's param groups, L blocks."""
  name = "vit_tiny_patch16_224"
  found = group_rates.factors(paths(name), head=10.0, layer_decay=0.75)
  depths = group_rates.depths(paths(name))
  for path, factor in found.items():
    head = 10.0 if path.startswith("student/head/") else 1.0
    assert factor == pytest.approx(head * 0.75 ** (13 - depths[path])), path
  assert found["student/head/kernel"] == 10.0
  assert found["student/stem/pos_embed"] == pytest.approx(0.75**13)


def test_both_heads_of_a_segmenter_are_faster():
  names = paths("resnet18", segmenter=True)
  found = group_rates.factors(names, head=10.0, layer_decay=1.0)
  for path, factor in found.items():
    inside = path.startswith(("student/head/", "student/aux/"))
    assert factor == (10.0 if inside else 1.0), path


def test_the_optimizer_moves_groups_at_their_rates():
  names = ("student/stem/w", "student/stage1/block0/w", "student/head/kernel")
  params = {name: jnp.ones((2, 2)) for name in names}
  grads = jax.tree.map(lambda x: 0.5 * x, params)
  tx = Optim(lr=0.1, head_lr=10.0, layer_decay=0.5).transform(5)
  updates, _ = tx.update(grads, tx.init(params), params)
  moved = [float(updates[name][0, 0]) for name in names]
  np.testing.assert_allclose(moved, [-0.0125, -0.025, -0.5], rtol=1e-6)


@pytest.mark.parametrize("steps", [7, 30_000])
def test_poly_is_the_authors_formula(steps):
  """util.poly_learning_rate of semseg: lr (1 - step / max)^0.9."""
  rate = Optim(lr=0.01, schedule="poly").rate(steps)
  every = np.linspace(0, steps - 1, 7).astype(int)
  wanted = [0.01 * (1 - float(step) / steps) ** 0.9 for step in every]
  found = [float(rate(jnp.asarray(step))) for step in every]
  # Float32 has few digits of what is left at the very end.
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-8)
  squared = Optim(lr=0.01, schedule="poly", power=2.0).rate(steps)
  assert float(squared(steps // 2)) < found[3]


def test_a_layer_decay_outside_0_and_1_is_refused():
  with pytest.raises(ValueError, match=r"layer_decay is 1.5; .*\(0, 1\]"):
    Optim(layer_decay=1.5)
  with pytest.raises(ValueError, match="power is -1; it must be at least 0"):
    Optim(power=-1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly"])
def test_a_factor_of_the_rate_is_another_rate(name, schedule):
  rng = np.random.default_rng(0)
  start = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
  grads = [{k: rng.normal(size=v.shape) for k, v in start.items()}] * 5
  fields = {"name": name, "schedule": schedule, "weight_decay": 0.1}
  fields["warmup"] = 2

  def trained(lr, rate):
    tx = Optim(lr=lr, **fields).transform(9)
    params = jax.tree.map(jnp.float32, start)
    state = tx.init(params)
    for grad in grads:
      grad = jax.tree.map(jnp.float32, grad)
      updates, state = tx.update(grad, state, params)
      updates = group_rates.scaled(updates, rate)
      params = jax.tree.map(jnp.add, params, updates)
    return params

  wanted, found = trained(0.06, None), trained(0.02, jnp.float32(3))
  for key, value in wanted.items():
    assert np.abs(value - start[key]).max() > 1e-2
    np.testing.assert_allclose(found[key], value, rtol=2e-6, atol=1e-7)
