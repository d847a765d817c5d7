"""BEiT and EVA against timm."""

from __future__ import annotations

import json
import math

import goldens as gw
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models, resolve
from kd_jax.convert import rules
from kd_jax.models.blocks.tokens import patches, rotary
from kd_jax.models.eva import beit

COUNTS = {
  "beit": {
    "beit_base_patch16_224": 86_530_984,
    "beit_base_patch16_384": 86_744_104,
    "beit_large_patch16_224": 304_430_568,
    "beit_large_patch16_384": 304_998_888,
    "beit_large_patch16_512": 305_674_728,
    "beitv2_base_patch16_224": 86_530_984,
    "beitv2_large_patch16_224": 304_430_568,
  },
}
BEIT, EVA = "beit_base_patch16_224", "eva02_small_patch14_224"
CLIP = "eva02_base_patch16_clip_224"
# timm in float64: options, and files of other image and patch sizes.
OPTIONS = dict(np.load(gw.FOLDER / "beit_eva_options.npz"))
OPTION_CASES = json.loads(str(OPTIONS["cases"]))
SMALL = {"embed_dim": 16, "depth": 4, "num_heads": 2}
TINY = {
  BEIT: {"img_size": (32, 16), "patch_size": 8},
  EVA: {"img_size": (16, 32), "patch_size": 8, "init_values": 0.5},
  CLIP: {"img_size": 32, "use_fc_norm": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [BEIT, EVA])
def test_matches_timm(case):
  model, _, taps = zoo.check_golden(
    case, zoo.FIELDS, lambda taps: taps["final"]
  )
  meta, arrays = gw.load(case)
  for k in meta["stage_indices"]:
    tokens = taps[f"block{k:02d}"]
    tokens = patches.tokens_to_map(tokens, model.num_prefix_tokens, model.grid)
    gw.check(meta, arrays, f"stage_{k}", tokens)
  assert [k // 3 for k in meta["stage_indices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("index", range(len(OPTION_CASES)))
def test_options_match_timm_in_float64(index):
  name, fields, size, stored = OPTION_CASES[index]
  fields = {**SMALL, **fields}
  origin = {**SMALL, **stored} if stored else fields
  with zoo.zeros():
    entries = rules.entries(models.create_model(name, num_classes=5, **origin))
  file = {k: gw.make_param(k, e.shape, 0.0) for k, e in entries.items()}
  with jax.enable_x64(True):
    model = models.create_model(name, num_classes=5, **zoo.RAW, **fields)
    with zoo.zeros():
      variables = convert.from_timm(model, file)
    variables = jax.tree.map(lambda a: a.astype(np.float64), variables)
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, *size))
    images = x.transpose(0, 2, 3, 1)
    taps = jax.device_get(jax.jit(model.apply)(variables, images))
  assert taps["logits"].dtype == np.float64
  # Sines of rotations are float32, and so is timm's resizing.
  rotates = getattr(model, "use_rot_pos_emb", False)
  error = 1e-5 if stored else 1e-6 if rotates else 1e-10
  near = {"rtol": error, "atol": error}
  for tap in ("logits", "pooled"):
    np.testing.assert_allclose(taps[tap], OPTIONS[f"{index}_{tap}"], **near)
  for k in range(4):
    tokens = patches.tokens_to_map(
      taps[f"block{k:02d}"], model.num_prefix_tokens, model.grid
    )
    got = tokens.mean(-1)
    np.testing.assert_allclose(got, OPTIONS[f"{index}_map{k}"], **near)


@pytest.mark.parametrize("family", COUNTS)
def test_counts_and_preprocessing(family):
  zoo.check_preprocessing(family)
  assert {*COUNTS[family]} == {*resolve.symbol("models", family, "VARIANTS")}
  for name, want in COUNTS[family].items():
    # All blocks are alike: tracing one of them is enough.
    model = models.create_model(name)
    taps, variables = zoo.shapes(model.clone(depth=4), end="stage1")
    with zoo.zeros():
      last = jax.eval_shape(
        lambda x, m=model: m.init(jax.random.key(0), x, begin="head"),
        taps["stage1"],
      )
    stem, block = (_size(variables["params"][k]) for k in ("stem", "stage1"))
    assert stem + model.depth * block + _size(last) == want, name


def _size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
  return zoo.Tiny(request.param, **SMALL, **TINY[request.param])


def test_tiny(tiny):
  tiny.check_names()
  taps = tiny.taps
  np.testing.assert_array_equal(taps["feature"], taps["pooled"])
  for k in range(4):
    np.testing.assert_array_equal(taps[f"block0{k}"], taps[f"stage{k + 1}"])
    assert set(tiny.variables["params"][f"stage{k + 1}"]) == {f"block{k}"}
  tiny.check_chain()
  tiny.check_bfloat16(0.03)


def test_gradients(tiny):
  tiny.check_gradients()


@pytest.mark.parametrize("name", [BEIT, CLIP])
def test_first_weights(name):
  fields = {**SMALL, **TINY[name], "embed_dim": 64, "num_classes": 100}
  model = models.create_model(name, **fields)
  tokens = math.prod(model.grid) + 1
  x = np.zeros((1, tokens, 64), np.float32)
  params = jax.jit(lambda key: model.init(key, x, begin="stage4")["params"])(
    jax.random.key(0)
  )
  attention = params["stage4"]["block3"]["attn"]
  for got, std in (
    (attention["proj"]["kernel"], 0.02 / math.sqrt(8)),
    (params["stage4"]["block3"]["mlp"]["fc2"]["kernel"], 0.02 / math.sqrt(8)),
    (params["head"]["kernel"], 2e-5),
  ):
    np.testing.assert_allclose(np.std(got), std, rtol=0.1)
  first = attention["qkv"] if name == BEIT else attention["q_proj"]
  np.testing.assert_allclose(np.std(first["kernel"]), 0.02, rtol=0.1)


def test_saved_models_keep_their_options(tiny, tmp_path):
  folder = convert.save_timm(
    tiny.model, tiny.variables, tmp_path, name=tiny.name
  )
  model, variables = convert.load_pretrained(tiny.name, folder)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


def test_original_files_of_beit():
  model = models.create_model(BEIT, **SMALL, **TINY[BEIT])
  variables = zoo.drawn(model)
  file = convert.to_timm(model, variables)
  file["blocks.0.attn.relative_position_index"] = np.zeros((9, 9), int)
  again = convert.from_timm(model, file)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize(
  "name, prefix", [(EVA, ""), (CLIP, "visual."), (CLIP, "visual.trunk.")]
)
def test_original_files_of_eva(name, prefix):
  """Older names, a text tower, rotations, and masked pre-training."""
  model = models.create_model(name, **SMALL, **TINY[name])
  variables = zoo.drawn(model)
  renamed = {
    "mlp.fc1_g": "mlp.w1",
    "mlp.fc1_x": "mlp.w2",
    "mlp.fc1.": "mlp.w12.",
    "mlp.fc2": "mlp.w3",
    "mlp.norm": "mlp.ffn_ln",
    "attn.norm": "attn.inner_attn_ln",
    "q_proj.bias": "q_bias",
    "v_proj.bias": "v_bias",
  }
  file = {prefix + "rope.freqs_cos": np.zeros(3, np.float32)}
  if prefix:
    file["text.positional_embedding"] = np.zeros(3, np.float32)
  for key, value in convert.to_timm(model, variables).items():
    for new, old in renamed.items():
      key = key.replace(new, old)
    if not prefix:
      key = key.replace("fc_norm", "norm")
    file[prefix + key] = value
  if not prefix:
    file["mask_token"] = file["lm_head.weight"] = np.zeros(3, np.float32)
  again = convert.from_timm(model, file)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_class_token_has_biases_of_its_own():
  index = beit.relative_index((2, 3))
  assert index.shape == (7, 7)
  assert index[0, 0] == 17
  assert set(index[0, 1:]) == {15}
  assert set(index[1:, 0]) == {16}
  assert set(np.diagonal(index)[1:]) == {7}
  assert index[1, 6] == 0 and index[6, 1] == 14


def test_rotation_depends_on_the_difference_of_places():
  turn = rotary.cat((3, 3), 8, reference=(6, 6))
  rng = np.random.default_rng(0)
  q, k = (np.tile(rng.normal(size=8), (1, 10, 1, 1)) for _ in range(2))
  q, k = (np.asarray(turn(np.float32(a)))[0, :, 0] for a in (q, k))
  products = (q[1:] @ k[1:].T).reshape(3, 3, 3, 3)
  near = {"rtol": 1e-5, "atol": 1e-5}
  np.testing.assert_allclose(
    products[1:, 1:, 1:, 1:], products[:2, :2, :2, :2], **near
  )
  assert np.ptp(products) > 0.1
  np.testing.assert_array_equal(
    np.asarray(turn(np.ones((1, 10, 1, 8), np.float32)))[0, 0], 1.0
  )
  # A reference of twice the grid doubles the angles.
  twice = rotary.cat_angles((3, 3), 8) * 2
  found = rotary.cat_angles((3, 3), 8, reference=(6, 6))
  np.testing.assert_allclose(found, twice, rtol=1e-6)


@pytest.mark.parametrize(
  "name, fields, message",
  [
    (BEIT, {"img_size": 225}, "patches of 16 x 16 pixels do not tile"),
    (BEIT, {"global_pool": "max"}, r"allowed: \['avg', 'token'\]"),
    (BEIT, {"mlp_ratio": 0}, "mlp_ratio is 0; it must be > 0"),
    (BEIT, {"depth": 3}, "depth is 3; it must be 4 or more"),
    (EVA, {"scale_mlp": True, "swiglu_mlp": False}, "scale_mlp=True needs"),
    (
      EVA,
      {"use_post_norm": True, "init_values": 0.1},
      "use_post_norm=True needs init_values=None",
    ),
    (CLIP, {"class_token": False}, "'token' needs class_token=True"),
    (EVA, {"ref_feat_shape": 0}, "ref_feat_shape is"),
    (EVA, {"num_heads": 64}, "heads have 6 channels; .* multiple of 4"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)


@pytest.mark.parametrize(
  "size, begin, message",
  [
    (
      (16, 32, 3),
      "stem",
      r"images are \(16, 32\), .* img_size=\(32, 16\). Set",
    ),
    ((10, 16), "stage3", r"stage3 reads 9 tokens of images of .* got 10"),
  ],
)
def test_wrong_images(size, begin, message):
  model = models.create_model(BEIT, **SMALL, **TINY[BEIT])
  x = jax.ShapeDtypeStruct((1, *size), np.float32)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, begin=begin), x)


def test_only_square_tables_are_resized():
  square, wide = (
    models.create_model(BEIT, **SMALL, patch_size=8, img_size=size)
    for size in (32, (32, 16))
  )
  file = convert.to_timm(square, zoo.drawn(square))
  with pytest.raises(ValueError, match="52 relative .* one of 24: only square"):
    convert.from_timm(wide, file)
