"""Vision transformers against timm."""

from __future__ import annotations

import json
import math

import goldens as gw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from flax import linen as nn

from kd_jax import convert, models, trees
from kd_jax.convert import rules
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, transformer

CASES = (
  "vit_tiny_patch16_224",
  "vit_small_patch14_reg4_dinov2",
)
# Their options are those of small members in `OPTION_CASES`, too.
MORE = (
  "deit_small_distilled_patch16_224",
  "vit_tiny_patch16_224__avg_nocls",
  "vit_small_patch14_dinov2",
  "deit3_medium_patch16_224",
  "vit_base_patch16_224",
  "vit_base_patch16_clip_224",
  "vit_base_patch16_clip_224__avg_nocls",
  "vit_base_patch16_clip_quickgelu_224",
  "vit_base_patch16_siglip_224",
)
# timm in float64: small members with unusual options, and resampling.
OPTIONS = dict(np.load(gw.FOLDER / "vit_options.npz"))
OPTION_CASES = json.loads(str(OPTIONS["cases"]))
SMALL = {
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
  "img_size": 32,
  "patch_size": 8,
}


@pytest.mark.parametrize(
  "case", [*CASES, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE)]
)
def test_matches_timm(case):
  meta, arrays = gw.load(case)
  fields = dict(zoo.FIELDS)
  if "logits_dist" in arrays:
    fields |= {"logits_head": "logits_head", "logits_dist": "logits_dist"}
  model, _, taps = zoo.check_golden(case, fields, lambda taps: taps["final"])
  size = tuple(meta["input"]["shape"][2:])
  grid = patches.grid_of(size, patches.pair(model.patch_size))
  for stage, k in enumerate(meta["stage_indices"], 1):
    tokens = taps[f"stage{stage}"]
    maps = patches.tokens_to_map(tokens, model.num_prefix_tokens, grid)
    gw.check(meta, arrays, f"stage_{k}", maps)


@pytest.mark.parametrize("index", range(len(OPTION_CASES)))
def test_options_match_timm_in_float64(index):
  name, fields, size = OPTION_CASES[index]
  with jax.enable_x64(True):
    model = models.create_model(name, num_classes=5, **zoo.RAW, **fields)
    with zoo.zeros():
      state_dict = {
        k: gw.make_param(k, e.shape) for k, e in rules.entries(model).items()
      }
      variables = convert.from_timm(model, state_dict)
    variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, *size))
    images = x.transpose(0, 2, 3, 1)
    taps = jax.device_get(jax.jit(model.apply)(variables, images))
  assert taps["logits"].dtype == np.float64
  near = {"rtol": 1e-10, "atol": 1e-12}
  for tap, want in (("logits", "logits"), ("pooled", "pooled")):
    np.testing.assert_allclose(taps[tap], OPTIONS[f"{index}_{want}"], **near)
  final = taps["final"].mean(-1)
  np.testing.assert_allclose(final, OPTIONS[f"{index}_features"], **near)


def test_resampling_matches_timm():
  rng = np.random.default_rng(0)
  table = rng.standard_normal((1, 2 + 5 * 5, 4)).astype("float32")
  kernel = rng.standard_normal((2, 3, 8, 8)).astype("float32")
  for name, new in (("pos_up", (7, 9)), ("pos_down", (3, 4))):
    got = patches.resample_positions(
      table, num_prefix_tokens=2, old=(5, 5), new=new
    )
    np.testing.assert_allclose(got, OPTIONS[name], rtol=1e-5, atol=2e-6)
  for size in (6, 12):
    got = patches.resample_patch(kernel, (size, size))
    want = OPTIONS[f"patch_{size}"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


def test_preprocessing():
  zoo.check_preprocessing("vit")


@pytest.fixture(scope="module")
def distilled():
  return zoo.Tiny("deit_tiny_distilled_patch16_224", **SMALL)


@pytest.fixture(scope="module")
def pooled():
  return zoo.Tiny(
    "vit_giant_patch14_reg4_dinov2",
    **SMALL,
    mlp_ratio=3.0,
    init_values=0.5,
    qk_norm=True,
    pre_norm=True,
    global_pool="map",
  )


def test_tiny_members(distilled, pooled):
  for tiny, prefix in ((distilled, 2), (pooled, 5)):
    tiny.check_names()
    np.testing.assert_array_equal(tiny.taps["feature"], tiny.taps["pooled"])
    for stage in range(4):
      block = tiny.taps[f"block{stage:02d}"]
      np.testing.assert_array_equal(tiny.taps[f"stage{stage + 1}"], block)
    assert tiny.model.num_prefix_tokens == prefix
    assert tiny.taps["stem"].shape == (4, prefix + 16, 16)
  both = distilled.taps["logits_head"] + distilled.taps["logits_dist"]
  np.testing.assert_allclose(distilled.taps["logits"], both / 2, rtol=1e-5)


def test_tiny_chain(pooled):
  pooled.check_chain()


def test_tiny_gradients(pooled):
  pooled.check_gradients()


def test_tiny_bfloat16(distilled, pooled):
  pooled.check_bfloat16(0.05)
  taps, _ = zoo.shapes(distilled.model.clone(dtype=jnp.dtype("bfloat16")))
  assert {a.dtype for a in taps.values()} == {jnp.dtype(jnp.bfloat16)}


def test_blocks_of_stages():
  for depth, want in ((4, [1] * 4), (12, [3] * 4), (27, [6, 7, 7, 7])):
    ranges = [transformer.blocks_of(f"stage{k}", depth) for k in (1, 2, 3, 4)]
    assert [len(r) for r in ranges] == want
    assert [i for r in ranges for i in r] == list(range(depth))


def test_drop_path_grows_linearly():
  rates = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, layers.DropPath):
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  model = models.create_model(
    "vit_tiny_patch16_224", drop_path_rate=0.3, **SMALL
  )
  with nn.intercept_methods(note):
    zoo.shapes(model, train=True)
  np.testing.assert_allclose(rates, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_initial_values():
  model = models.create_model(
    "vit_giant_patch14_reg4_dinov2",
    **{**SMALL, "embed_dim": 64, "mlp_ratio": 4.0},
  )
  images = jnp.zeros((1, 32, 32, 3))
  variables = jax.jit(model.init, static_argnames="end")(
    jax.random.key(0), images, end="stage1"
  )
  flat = trees.flatten(variables["params"])
  block = "stage1/block0/"
  assert (flat[block + "ls1/gamma"] == np.float32(1e-5)).all()
  gate, value = np.split(flat[block + "mlp/fc1/kernel"], 2, axis=1)
  stds = [gate.std(), value.std(), flat[block + "attn/qkv/kernel"].std()]
  np.testing.assert_allclose(stds, [0.02, 1e-6, 0.02], rtol=0.05)
  np.testing.assert_array_equal(np.split(flat[block + "mlp/fc1/bias"], 2)[0], 0)
  assert (np.split(flat[block + "mlp/fc1/bias"], 2)[1] == 1).all()
  np.testing.assert_allclose(flat["stem/pos_embed"].std(), 0.02, rtol=0.1)
  assert np.abs(flat["stem/cls_token"]).max() < 1e-5
  bound = 1 / math.sqrt(3 * 8 * 8)
  largest = np.abs(flat["stem/patch_embed/proj/kernel"]).max()
  assert 0.98 * bound < largest <= bound


def test_saved_model_comes_back(tmp_path, distilled):
  name = distilled.name
  model = distilled.model.clone(img_size=(32, 48), **zoo.RAW)
  variables = zoo.drawn(model)
  convert.save_timm(model, variables, tmp_path, name=name)
  again, loaded = convert.load_pretrained(name, tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_files_of_another_size(distilled):
  large = models.create_model(
    distilled.name, **{**distilled.fields, "num_classes": 6, "img_size": 48}
  )
  tensors = convert.to_timm(distilled.model, distilled.variables)
  variables = convert.from_timm(large, tensors)
  images = jax.image.resize(distilled.images, (4, 48, 48, 3), "linear")
  got = distilled.run(distilled.variables, images, end="stem")["stem"]
  want = large.apply(variables, images, end="stem")["stem"]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  coarse = large.clone(img_size=64, patch_size=16)
  kernel = convert.from_timm(coarse, tensors)["params"]["stem"]["patch_embed"]
  want = patches.resample_patch(tensors["patch_embed.proj.weight"], (16, 16))
  got = kernel["proj"]["kernel"].transpose(3, 2, 0, 1)
  np.testing.assert_array_equal(got, want)
  with pytest.raises(ValueError, match="has 18 entries, the model 26; only"):
    convert.from_timm(large.clone(img_size=(32, 48)), tensors)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"img_size": 30}, r"patches of 16 x 16 .* do not tile .* 30 x 30"),
    ({"img_size": (32, 0)}, "img_size is .* 2 positive integers"),
    ({"patch_size": "16"}, "patch_size is '16'"),
    ({"depth": 3}, "depth is 3; it must be 4 or more"),
    ({"embed_dim": 0}, "embed_dim is 0"),
    ({"num_heads": 5}, "num_heads is 5; it must divide embed_dim=192"),
    ({"global_pool": "mean"}, "global_pool is 'mean'; allowed"),
    ({"class_token": False}, "global_pool='token' needs class_token=True"),
    ({"act_layer": "tanh"}, "act_layer is 'tanh'; allowed"),
    ({"mlp_layer": "glu"}, "mlp_layer is 'glu'; allowed"),
    ({"fc_norm": "yes"}, "fc_norm is 'yes'; allowed"),
    ({"reg_tokens": -1}, "reg_tokens is -1"),
    ({"norm_layer": "batch"}, "norm_layer is 'batch'; allowed"),
    ({"block_fn": "wide"}, "block_fn is 'wide'; allowed"),
    (
      {"block_fn": "parallel_scaling", "attn_layer": "diff"},
      "block_fn='parallel_scaling' needs mlp_layer='mlp'",
    ),
    (
      {"attn_layer": "diff", "num_heads": 64},
      "heads have 3 channels; the diff",
    ),
    ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0; .* an MLP of 0 channels"),
    (
      {"mlp_ratio": 193 / 192, "mlp_layer": "swiglu_packed"},
      "an MLP of 193 channels, not a positive multiple of 2",
    ),
    ({"init_values": "small"}, "init_values is 'small'"),
    ({"distilled": True, "reg_tokens": 1}, "distilled=True needs"),
    ({"distilled": True, "global_pool": "avg"}, "distilled=True needs"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("vit_tiny_patch16_224", **fields)


def test_pixels_that_no_patch_covers_are_left_out():
  name = "vit_so400m_patch14_siglip_384"
  model = models.create_model(name, **{**SMALL, "img_size": 38})
  variables = zoo.drawn(model)
  images = np.random.default_rng(0).uniform(size=(1, 38, 38, 3))
  images = images.astype("float32")
  run = jax.jit(model.apply, static_argnames="end")
  got = run(variables, images, end="stem")["stem"]
  np.testing.assert_allclose(
    got, run(variables, images[:, :32, :32], end="stem")["stem"], rtol=1e-5
  )
  with pytest.raises(ValueError, match="do not tile an image of 4 x 38"):
    run(variables, images[:, :4])


def test_wrong_calls(distilled):
  with pytest.raises(ValueError, match="do not tile an image of 36 x 32"):
    distilled.run(distilled.variables, jnp.zeros((1, 36, 32, 3)))
  with pytest.raises(ValueError, match="18 tokens, 2 of them prefixes"):
    patches.tokens_to_map(distilled.taps["stage1"], 2, (3, 5))
