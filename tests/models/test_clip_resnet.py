"""The ResNets of CLIP, with and without attention pooling."""

from __future__ import annotations

import re

import convzoo
import counts
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.resnet import clip_resnet

# Of timm 1.0.31.
PARAMS = {
  "resnet50_clip": 38_316_896,
  "resnet101_clip": 56_259_936,
  "resnet50x4_clip": 87_137_080,
  "resnet50x16_clip": 167_328_912,
  "resnet50x64_clip": 420_380_352,
}
GAP_PARAMS = {
  "resnet50_clip_gap": 23_527_264,
  "resnet101_clip_gap": 42_519_392,
  "resnet50x4_clip_gap": 65_619_640,
  "resnet50x16_clip_gap": 136_202_640,
  "resnet50x64_clip_gap": 365_034_176,
}
SMALL = {"layers": [1, 1, 1, 1], "width_factor": 0.03125}


@pytest.fixture(scope="module")
def tiny():
  return zoo.Tiny("resnet50_clip", **SMALL, img_size=64)


@pytest.mark.slow
def test_golden():
  stage4 = lambda taps: taps["stage4"]  # noqa: E731
  zoo.check_golden("resnet50_clip", zoo.CONV_FIELDS, stage4)


@pytest.mark.parametrize(
  "index, name", convzoo.option_cases("clip_resnet", "clip_resnet_gap")
)
def test_options_match_timm_in_float64(index, name):
  convzoo.check_options(index)


def test_counts():
  counts.check("clip_resnet", PARAMS)
  counts.check("clip_resnet_gap", GAP_PARAMS)


def test_preprocessing():
  zoo.check_preprocessing("clip_resnet")
  for name in PARAMS:
    whole, gap = models.create_model(name), models.create_model(name + "_gap")
    assert whole.img_size == whole.input_size[1] == gap.input_size[1]
    assert (gap.mean, gap.crop_pct) == (whole.mean, whole.crop_pct)


def test_small_member(tiny):
  tiny.check_names()
  tiny.check_chain()
  # The softmax ignores what all keys share.
  tiny.check_gradients(invisible=("pool/k/bias",))
  tiny.check_bfloat16(0.03)


def test_gap_member_in_bfloat16():
  tiny = zoo.Tiny("resnet50_clip_gap", **SMALL)
  tiny.check_names()
  tiny.check_bfloat16(0.03)
  assert float(tiny.taps["feature"].min()) < 0 <= tiny.taps["pooled"].min()


def _openai(state_dict):
  """The names of OpenAI's files, with a piece of the text tower."""
  names = (
    (r"^stem\.conv(\d)\.(conv|bn)\.", r"\2\1."),
    (r"^stages\.0\.", "layer1."),
    (r"^stages\.1\.", "layer2."),
    (r"^stages\.2\.", "layer3."),
    (r"^stages\.3\.", "layer4."),
    (r"\.conv(\d)_...\.(conv|bn)\.", r".\2\1."),
    (r"\.shortcut\.conv\.conv\.", ".downsample.0."),
    (r"\.shortcut\.conv\.bn\.", ".downsample.1."),
    (r"^head\.([qkv])\.", r"attnpool.\1_proj."),
    (r"^head\.proj\.", "attnpool.c_proj."),
    (r"^head\.pos_embed", "attnpool.positional_embedding"),
  )
  found = {"logit_scale": np.ones(()), "ln_final.weight": np.ones(8)}
  for name, value in state_dict.items():
    for pattern, new in names:
      name = re.sub(pattern, new, name)
    found[f"visual.{name}"] = value
  return found


def test_files_of_openai(tiny):
  theirs = convert.to_timm(tiny.model, tiny.variables)
  old = _openai(theirs)
  assert "visual.layer1.0.conv2.weight" in old
  assert "visual.layer4.0.downsample.1.running_var" in old
  back = convert.to_timm(tiny.model, convert.from_timm(tiny.model, old))
  for name, value in theirs.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
  gap = models.create_model("resnet50_clip_gap", **SMALL)
  trunk = convert.from_timm(gap, old)["params"]
  want = tiny.variables["params"]["stage4"]
  same = jax.tree.map(np.array_equal, trunk["stage4"], want)
  assert all(jax.tree.leaves(same))


def test_position_embedding_of_another_size(tiny, tmp_path):
  large = models.create_model(
    "resnet50_clip", **SMALL, num_classes=6, img_size=96
  )
  theirs = convert.to_timm(tiny.model, tiny.variables)
  variables = convert.from_timm(large, theirs)
  small = tiny.variables["params"]["pool"]["pos_embed"]
  found = variables["params"]["pool"]["pos_embed"]
  np.testing.assert_array_equal(found[0], small[0])
  want = clip_resnet.resized(small, (2, 2), (3, 3))
  np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)
  convert.save_timm(large, variables, tmp_path, name="resnet50_clip")
  model, again = convert.load_pretrained("resnet50_clip", tmp_path)
  assert model == large
  np.testing.assert_array_equal(again["params"]["pool"]["pos_embed"], found)


@pytest.mark.parametrize(
  "name, fields, message",
  [
    ("resnet50_clip", {"img_size": 100}, "img_size is 100; it must be a mul"),
    ("resnet50_clip", {"width_factor": 0.01}, "last map of 24 channels"),
    ("resnet50_clip", {"width_factor": 0}, "width_factor is 0; it must be"),
    ("resnet50_clip", {"layers": [1]}, "layers is .* 4 positive integers"),
    ("resnet50_clip", {"global_pool": "avg"}, r"allowed: \['token'\]"),
    ("resnet50_clip_gap", {"global_pool": "token"}, "allowed: .'avg', 'max'"),
  ],
)
def test_wrong_options(name, fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(name, **fields)


def test_odd_maps(tiny):
  image = jax.ShapeDtypeStruct((1, 64, 80, 3), np.float32)
  with pytest.raises(ValueError, match="stage4 halves its map, which is 4x5"):
    jax.eval_shape(tiny.model.apply, tiny.variables, image)
