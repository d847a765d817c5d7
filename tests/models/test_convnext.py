"""ConvNeXt and ConvNeXt V2."""

from __future__ import annotations

import re

import convzoo
import counts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.convnext import blocks

# Of timm 1.0.31.
PARAMS = {
  "convnext_atto": 3_695_520,
  "convnext_atto_ols": 3_702_912,
  "convnext_femto": 5_217_784,
  "convnext_femto_ols": 5_226_520,
  "convnext_pico": 9_045_672,
  "convnext_pico_ols": 9_061_928,
  "convnext_nano": 15_593_560,
  "convnext_nano_ols": 15_649_560,
  "convnext_tiny": 28_589_128,
  "convnext_tiny_hnf": 28_589_128,
  "convnext_small": 50_223_688,
  "convnext_base": 88_591_464,
  "convnext_large": 197_767_336,
  "convnext_large_mlp": 200_128_168,
  "convnext_xlarge": 350_196_968,
  "convnext_xxlarge": 846_471_016,
  "convnextv2_atto": 3_708_400,
  "convnextv2_femto": 5_233_240,
  "convnextv2_pico": 9_066_280,
  "convnextv2_nano": 15_623_800,
  "convnextv2_tiny": 28_635_496,
  "convnextv2_small": 50_318_440,
  "convnextv2_base": 88_717_800,
  "convnextv2_large": 197_956_840,
  "convnextv2_huge": 660_289_640,
}
SMALL = {"depths": [1, 1, 1, 1], "dims": [8, 16, 8, 16]}
FIELDS = {**zoo.FIELDS, **{f"stage_{k}": f"stage{k + 1}" for k in range(4)}}


@pytest.fixture(scope="module")
def tiny():
  # convnextv2_nano holds its dense layers as 1x1 convolutions.
  with convzoo.native_depthwise():
    yield zoo.Tiny("convnextv2_nano", **SMALL, drop_path_rate=0.1)


def _check_golden(case):
  zoo.check_golden(case, FIELDS, lambda taps: taps["stage4"])


@pytest.mark.slow
def test_golden_at_odd_sizes():
  _check_golden("convnext_tiny__odd")


@pytest.mark.parametrize(
  "case",
  [
    pytest.param("convnext_tiny", marks=pytest.mark.slow),
    "convnextv2_nano",
    pytest.param("convnextv2_base", marks=pytest.mark.slow),
  ],
)
def test_golden(case):
  with convzoo.native_depthwise():
    _check_golden(case)


@pytest.mark.parametrize("index, name", convzoo.option_cases("convnext"))
def test_options_match_timm_in_float64(index, name):
  # timm normalises the map only where it pools what is normalised.
  last = "final" if "hnf" in name else "stage4"
  convzoo.check_options(index, lambda taps: taps[last])


@pytest.mark.parametrize("fields", [{}, {"head_hidden_size": 12}])
def test_final_is_the_normalised_map(fields):
  model = models.create_model("convnext_tiny", **SMALL, **fields)
  variables = zoo.drawn(model)
  x = np.random.default_rng(0).normal(2, 3, (2, 3, 2, 16)).astype("float32")
  taps = jax.jit(lambda v, x: model.apply(v, x, begin="head"))(variables, x)
  norm = variables["params"]["neck"]["norm"]

  def normalise(x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * norm["scale"] + norm["bias"]

  near = {"rtol": 1e-4, "atol": 1e-5}
  np.testing.assert_allclose(taps["final"], normalise(x), **near)
  assert taps["pooled"].shape == (2, fields.get("head_hidden_size", 16))
  if not fields:
    want = normalise(x.mean((1, 2)))
    np.testing.assert_allclose(taps["pooled"], want, **near)


@pytest.mark.slow
def test_counts():
  counts.check("convnext", PARAMS)


def test_preprocessing():
  zoo.check_preprocessing("convnext")


def test_small_member(tiny):
  tiny.check_names()
  tiny.check_chain()
  tiny.check_gradients()
  tiny.check_bfloat16(0.03)


def test_layer_scale():
  model = models.create_model("convnext_tiny", **SMALL, ls_init_value=0.5)
  x = jnp.ones((1, 4, 4, 8))
  variables = jax.jit(
    lambda key: model.init(key, x, begin="stage1", end="stage1")
  )(jax.random.key(0))
  block = variables["params"]["stage1"]["block0"]
  assert (block["gamma"] == 0.5).all() and not block["fc1"]["bias"].any()
  assert 0.015 < float(block["conv_dw"]["kernel"].std()) < 0.025


def test_response_norm():
  norm = blocks.ResponseNorm(None)
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  x[..., 2] = 0
  params = {"scale": np.float32([1, 2, 3, 4, 5]), "bias": np.ones(5, "f4")}

  def run(x):
    return norm.apply({"params": params}, x)

  length = np.sqrt((np.float64(x) ** 2).sum((1, 2), keepdims=True))
  share = length / (length.mean(-1, keepdims=True) + 1e-6)
  want = x + x * share * params["scale"] + params["bias"]
  np.testing.assert_allclose(run(x), want, rtol=1e-5, atol=1e-6)
  # A dead channel must not poison the gradient.
  grad = jax.grad(lambda x: (run(x) ** 2).sum())(x)
  assert np.isfinite(grad).all()


FACEBOOK = (
  (r"^stem\.", "downsample_layers.0."),
  (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
  (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
  (r"conv_dw", "dwconv"),
  (r"mlp\.fc(\d)", r"pwconv\1"),
  (r"mlp\.grn\.weight", "grn.gamma"),
  (r"mlp\.grn\.bias", "grn.beta"),
  (r"^head\.fc\.", "head."),
  (r"^head\.norm\.", "norm."),
)


def _facebook(state_dict):
  found = {}
  for name, value in state_dict.items():
    for pattern, new in FACEBOOK:
      name = re.sub(pattern, new, name)
    if "pwconv" in name and value.ndim == 4:
      value = value[:, :, 0, 0]
    found[name] = value.reshape(1, 1, 1, -1) if "grn" in name else value
  return found


def _check_same(tiny, file):
  theirs = convert.to_timm(tiny.model, tiny.variables)
  back = convert.to_timm(tiny.model, convert.from_timm(tiny.model, file))
  for name, value in theirs.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_files_of_facebook(tiny):
  file = _facebook(convert.to_timm(tiny.model, tiny.variables))
  assert file["stages.0.0.pwconv1.weight"].shape == (32, 8)
  _check_same(tiny, file)


def test_saved_options_are_read_again(tmp_path):
  name = "convnext_tiny_hnf"
  fields = {"ls_init_value": None, "head_norm_first": False, "norm_eps": 1e-5}
  model = models.create_model(name, **SMALL, **fields, num_classes=6)
  variables = zoo.drawn(model)
  convert.save_timm(model, variables, tmp_path, name=name)
  again, loaded = convert.load_pretrained(name, tmp_path)
  assert again == model
  same = jax.tree.map(np.array_equal, loaded, variables)
  assert all(jax.tree.leaves(same))


def test_files_of_openclip(tiny):
  theirs = convert.to_timm(tiny.model, tiny.variables)
  file = {
    f"visual.trunk.{k}": v
    for k, v in theirs.items()
    if not k.startswith("head.fc")
  }
  file["visual.head.proj.weight"] = theirs["head.fc.weight"]
  file["text.token_embedding.weight"] = np.ones((3, 3), np.float32)
  loaded = convert.from_timm(tiny.model, file)
  back = convert.to_timm(tiny.model, loaded)
  assert not back.pop("head.fc.bias").any()
  for name, value in back.items():
    np.testing.assert_array_equal(theirs[name], value, err_msg=name)


def test_files_without_the_last_normalisation(tiny):
  theirs = convert.to_timm(tiny.model, tiny.variables)
  file = {k: v for k, v in theirs.items() if not k.startswith("head.")}
  model = models.create_model("convnextv2_nano", **SMALL, num_classes=0)
  neck = convert.from_timm(model, file)["params"]["neck"]["norm"]
  assert (neck["scale"] == 1).all() and not neck["bias"].any()
  del file["stem.0.weight"]
  with pytest.raises(ValueError, match=r"1 missing: stem.0.weight"):
    convert.from_timm(model, file)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"depths": [3, 3]}, "depths is .* 4 positive integers"),
    ({"dims": [3, 3]}, "dims is .* 4 positive integers"),
    ({"patch_size": 3}, r"patch_size is 3; allowed: \[1, 2, 4\]"),
    ({"stem_type": "deep"}, "stem_type is 'deep'; allowed: .'patch'"),
    (
      {"stem_type": "overlap", "patch_size": 2},
      "patch_size=2 has no effect: stem_type='overlap'",
    ),
    ({"ls_init_value": "small"}, "ls_init_value is 'small'; a number or None"),
    ({"norm_eps": 0.0}, "norm_eps=0.0: neither may be negative"),
    (
      {"head_norm_first": True, "head_hidden_size": 8},
      "head_hidden_size needs head_norm_first=False",
    ),
    ({"global_pool": "catavgmax"}, "allowed: .'avg', 'max', 'avgmax'"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("convnext_tiny", **fields)
