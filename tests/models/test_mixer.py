"""MLP-Mixer against timm."""

from __future__ import annotations

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from flax import linen as nn

from kd_jax import convert, models, trees
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches


def test_matches_timm():
  meta, arrays = gw.load("mixer_s16_224")
  _, _, taps = zoo.check_golden(
    "mixer_s16_224", zoo.FIELDS, lambda taps: taps["final"]
  )
  for stage, k in enumerate(meta["stage_indices"], 1):
    maps = patches.tokens_to_map(taps[f"stage{stage}"], 0, (14, 14))
    gw.check(meta, arrays, f"stage_{k}", maps)


KINDS = ("gmixer", "resmlp", "gmlp")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_other_blocks(kind):
  fields = {"gmixer": {"mlp_layer": "glu", "mlp_ratio": (1.0, 4.0)}}
  fields = fields.get(kind, {"block_layer": kind})
  small = {"embed_dim": 16, "num_blocks": 4, "img_size": 16, "patch_size": 8}
  tiny = zoo.Tiny("mixer_s16_224", **small, **fields)
  tiny.check_names()
  tiny.check_chain()
  # A shift of all tokens is taken away by the next normalisation.
  tiny.check_gradients(invisible=["mlp_tokens/fc2/bias"])
  tiny.check_bfloat16(0.05)


def test_original_files_of_resmlp():
  small = {"embed_dim": 16, "num_blocks": 4, "img_size": 16, "patch_size": 8}
  model = models.create_model("resmlp_12_224", **small)
  variables = zoo.drawn(model)
  file = {}
  for name, value in convert.to_timm(model, variables).items():
    for timm, theirs in (
      ("stem.", "patch_embed."),
      ("linear_tokens.", "attn."),
      ("mlp_channels.", "mlp."),
      ("ls", "gamma_"),
    ):
      name = name.replace(timm, theirs)
    file[name] = value[0, 0] if name.endswith((".alpha", ".beta")) else value
  found = convert.from_timm(model, file)
  jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_gates_begin_near_one():
  small = {"embed_dim": 16, "num_blocks": 4, "img_size": 16, "patch_size": 8}
  image = jnp.zeros((1, 16, 16, 3))
  for name, gate in (
    ("gmixer_12_224", "mlp_channels/fc1"),
    ("gmlp_ti16_224", "gate_proj"),
  ):
    model = models.create_model(name, **small)
    init = jax.jit(model.init, static_argnames="end")
    params = trees.flatten(init(jax.random.key(0), image, end="stage1"))
    layer = f"params/stage1/block0/{gate}"
    half = params[f"{layer}/bias"].size // 2 if gate != "gate_proj" else 0
    assert (params[f"{layer}/bias"][half:] == 1).all()
    kernel = np.abs(params[f"{layer}/kernel"])
    assert 0 < kernel[:, half:].max() < 1e-5
    if half:
      assert kernel[:, :half].max() > 0.1


@pytest.fixture(scope="module")
def tiny():
  return zoo.Tiny(
    "mixer_s16_224",
    embed_dim=16,
    num_blocks=5,
    img_size=(16, 24),
    patch_size=8,
  )


def test_tiny_member(tiny):
  tiny.check_names()
  np.testing.assert_array_equal(tiny.taps["stage4"], tiny.taps["block04"])
  np.testing.assert_array_equal(tiny.taps["feature"], tiny.taps["pooled"])
  assert tiny.taps["stage1"].shape == (4, 6, 16)
  tiny.check_chain()


def test_tiny_gradients_and_bfloat16(tiny):
  tiny.check_gradients(invisible=["mlp_tokens/fc2/bias"])
  tiny.check_bfloat16(0.05)


def test_drop_path_is_constant(tiny):
  rates = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, layers.DropPath):
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    zoo.shapes(tiny.model.clone(drop_path_rate=0.3), train=True)
  assert rates == [0.3] * 10


def test_initial_values(tiny):
  model = tiny.model.clone(num_blocks=4)
  params = jax.jit(model.init, static_argnames="begin")(
    jax.random.key(0), tiny.taps["stage3"], begin="stage4"
  )["params"]
  assert not params["head"]["kernel"].any()
  fc1 = params["stage4"]["block3"]["mlp_channels"]["fc1"]
  bound = np.sqrt(6 / (16 + 64))
  assert 0.95 * bound < np.abs(fc1["kernel"]).max() <= bound
  assert 0 < np.abs(fc1["bias"]).max() < 1e-5


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"num_blocks": 3}, "num_blocks is 3; it must be 4 or more"),
    ({"img_size": 225}, "do not tile an image of 225 x 225"),
    ({"mlp_ratio": (0.5,)}, "mlp_ratio is .* two numbers"),
    ({"mlp_ratio": (0.0, 4.0)}, "mlp_ratio is .* widths of 1"),
    ({"global_pool": "max"}, "global_pool is 'max'; allowed"),
    ({"act_layer": "tanh"}, "act_layer is 'tanh'; allowed"),
    ({"block_layer": "vit"}, "block_layer is 'vit'; allowed"),
    ({"mlp_layer": "glu", "block_layer": "gmlp"}, "needs block_layer='mixer'"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("mixer_s16_224", **fields)


def test_images_of_another_size(tiny):
  with pytest.raises(ValueError, match="takes images of 16 x 24, got 24 x 24"):
    tiny.run(tiny.variables, jnp.zeros((1, 24, 24, 3)))
