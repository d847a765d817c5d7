"""Networks that begin in the middle, on tokens with and without a prefix."""

from __future__ import annotations

import convzoo
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import models
from kd_jax.models.blocks.tokens import windows
from kd_jax.types import STAGES

VIT, DEIT = "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
EVA, BEIT = "eva02_small_patch14_224", "beit_base_patch16_224"
MIXER, SWIN = "mixer_s16_224", "swin_tiny_patch4_window7_224"
CONVNEXT = "convnext_tiny"
# Four by four patches; stage 4 has the blocks 3 and 4.
TINY = {"embed_dim": 16, "img_size": 32, "patch_size": 8, "num_classes": 6}
SMALL = {**TINY, "depth": 5, "num_heads": 2}
AVG = {**SMALL, "global_pool": "avg"}
ROTARY = {"use_rot_pos_emb": True, "ref_feat_shape": 2, "init_values": 0.5}
PLAIN = {"class_token": False}
# Name and fields of a network, and of the same without a prefix.
TOKENS = {
  "vit tokens": (
    VIT,
    {"reg_tokens": 4, "qk_norm": True, "global_pool": "map"},
    {"reg_tokens": 0, **PLAIN},
  ),
  "eva tokens": (EVA, {"use_rot_pos_emb": False, "use_fc_norm": False}, PLAIN),
  "eva rotary": (EVA, ROTARY, PLAIN),
  "beit tokens": (BEIT, {"init_values": 0.5}, {}),
}
MAPS = {
  SWIN: {"embed_dim": 8, "img_size": 64, "num_heads": (1, 1, 2, 2)},
  CONVNEXT: {"dims": (8, 8, 8, 16)},
}
IMAGES = np.random.default_rng(0).uniform(size=(2, 32, 32, 3))
IMAGES = IMAGES.astype("float32")


def resumed(model, variables, xs):
  """{begin: (gradient by x of a loss at the end, taps)}."""

  def one(variables, begin, x):
    def loss(x):
      taps = model.apply(variables, x, begin=begin)
      return (taps["logits"] ** 2).sum(), taps

    return jax.grad(loss, has_aux=True)(x)

  run = jax.jit(lambda v, xs: {b: one(v, b, x) for b, x in xs.items()})
  return run(variables, xs)


def check(found, wanted):
  for begin, (grad, taps) in found.items():
    for name, value in taps.items():
      want = wanted[name]
      # Float32, another program for every beginning.
      np.testing.assert_allclose(value, want, 1e-4, 1e-4, err_msg=name)
    assert {"stage4", "final", "pooled", "logits"} <= set(taps)
    assert np.isfinite(grad).all(), begin
    assert (np.abs(grad).max(-1) > 0).all(), begin


def check_resumed(model, variables, whole):
  before = {"block04": whole["block03"], "stage4": whole["stage3"]}
  found = resumed(model, variables, before)
  check(found, whole)
  blocks = [{k for k in found[b][1] if "block" in k} for b in before]
  assert blocks == [{"block04"}, {"block03", "block04"}]


@pytest.fixture(scope="module", params=TOKENS)
def network(request):
  name, fields, plain = TOKENS[request.param]
  model = models.create_model(name, **{**AVG, **fields})
  return model, zoo.drawn(model), model.clone(**plain)


def test_tokens_equal_those_of_the_whole(network):
  model, variables, _ = network
  check_resumed(model, variables, jax.jit(model.apply)(variables, IMAGES))


def test_without_prefix_as_if_there_were_none(network):
  """As a network that never had one, or (BEiT) whose patches ignore it."""
  model, variables, plain = network
  stem = zoo.drawn(plain)["params"]["stem"]
  params = {**variables["params"], "stem": stem}
  params = jax.tree_util.tree_map_with_path(_deaf, params)
  taps = jax.jit(plain.apply)({"params": params}, IMAGES)
  prefix = plain.num_prefix_tokens
  want = {k: x[:, prefix:] if x.ndim == 3 else x for k, x in taps.items()}
  assert want["block03"].shape == (2, 16, 16) and model.num_prefix_tokens
  found = resumed(model, variables, {"block04": want["block03"]})
  check(found, want)


def _deaf(path, leaf):
  """Patches give the class token no weight."""
  if path[-1].key == "relative_position_bias_table":
    leaf = leaf.copy()
    leaf[windows.table_length((4, 4)) + 1] = -1e9
  return leaf


def test_mixer_equals_the_whole():
  model = models.create_model(MIXER, num_blocks=5, **TINY)
  variables = zoo.drawn(model)
  check_resumed(model, variables, jax.jit(model.apply)(variables, IMAGES))


@pytest.mark.parametrize("name", MAPS)
def test_maps_equal_those_of_the_whole(name):
  fields = {"depths": (1, 1, 1, 2), "num_classes": 6, **MAPS[name]}
  model = models.create_model(name, **fields)
  variables = zoo.drawn(model)
  shape = zoo.shapes(model, end="stage2")[0]["stage2"].shape
  x = np.random.default_rng(1).normal(size=shape).astype("float32")
  run = jax.jit(lambda v, x: model.apply(v, x, begin="stage3"))
  with convzoo.native_depthwise():
    whole = run(variables, x)
    found = resumed(model, variables, {"stage4": whole["stage3"]})
  check(found, whole)


def shapes(name, x, begin, *, fields=AVG, end="head"):
  model = models.create_model(name, **fields)
  spec = jax.ShapeDtypeStruct(x, jnp.float32)
  run = model.init_with_output
  return jax.eval_shape(
    lambda x: run(jax.random.key(0), x, begin=begin, end=end)[0], spec
  )


def test_blocks_run_in_order():
  names = [f"block{i:02d}" for i in range(5)]
  for i, begin in enumerate(names):
    taps = shapes(VIT, (2, 17, 16), begin)
    first = STAGES.index(("stage1", "stage2", "stage3", "stage4")[min(i, 3)])
    assert [k for k in sorted(taps) if k in names] == names[i:]
    assert [k for k in STAGES if k in taps] == list(STAGES[first:-1])
  taps = shapes(VIT, (2, 17, 16), "block01", end="stage3")
  assert set(taps) == {"block01", "block02", "stage2", "stage3"}


def test_images_of_other_sizes():
  """3 x 5 patches and a class token are as many as 4 x 4 patches."""
  taps = shapes(VIT, (2, 24, 40, 3), "stem", fields=SMALL)
  assert taps["final"].shape == (2, 16, 16)
  taps = shapes(VIT, (2, 30, 16), "block02", end="stage4")
  assert taps["stage4"].shape == (2, 30, 16)
  plain = {**AVG, **PLAIN}
  assert "logits" in shapes(VIT, (2, 30, 16), "stage4", fields=plain)


@pytest.mark.parametrize(
  "name, x, begin, message",
  [
    (VIT, (2, 17, 16), "block05", r"begin is 'block05'; .*'block04'\]"),
    (VIT, (2, 17, 16), "block4", "begin is 'block4'; allowed: .'stem'"),
    (VIT, (2, 4, 4, 16), "block04", r"reads tokens \(n, t, 16\), got the"),
    (VIT, (2, 16, 8), "block04", r"\(n, t, 16\), got the .* \(2, 16, 8\)"),
    (VIT, (2, 18, 16), "block04", r"head reads 17 .*\(or 16 .*, got 18. Set"),
    (BEIT, (2, 15, 16), "block04", r"block04 reads 17 tokens of .* got 15"),
    (EVA, (2, 18, 16), "stage2", r"stage2 reads 17 .*\(or 16 without a prefix"),
  ],
)
def test_wrong_beginnings(name, x, begin, message):
  with pytest.raises(ValueError, match=message):
    shapes(name, x, begin)


def test_wrong_tokens_of_the_mixer():
  fields = {**TINY, "num_blocks": 5}
  with pytest.raises(ValueError, match=r"reads 16 tokens of .*32\), got 17"):
    shapes(MIXER, (2, 17, 16), "block04", fields=fields)


@pytest.mark.parametrize("name", [VIT, DEIT, BEIT])
def test_heads_that_read_the_prefix(name):
  fields = {**SMALL, "global_pool": "token"}
  with pytest.raises(ValueError, match="class token .*Stop at end='stage4'"):
    shapes(name, (2, 16, 16), "block04", fields=fields)
  taps = shapes(name, (2, 16, 16), "block04", fields=fields, end="stage4")
  assert taps["stage4"].shape == (2, 16, 16)


@pytest.mark.parametrize("name", [SWIN, CONVNEXT, "resnet18"])
def test_maps_begin_at_stages_only(name):
  allowed = ", ".join(f"'{stage}'" for stage in STAGES)
  with pytest.raises(ValueError, match=rf"'block01'; allowed: \[{allowed}\]"):
    shapes(name, (2, 8, 8, 8), "block01", fields={})


def test_end_before_a_block():
  with pytest.raises(ValueError, match="end='stage3' comes before"):
    shapes(VIT, (2, 17, 16), "block04", end="stage3")
