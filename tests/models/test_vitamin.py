"""ViTamin against timm."""

from __future__ import annotations

import goldens as gw
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.convert import rules
from kd_jax.models.vit import vitamin

CASES = len(gw.small("vitamin"))
NAME = "vitamin_small_224"
SMALL = {
  "img_size": (32, 48),
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
  "conv_dims": (8, 12),
  "conv_depths": (2, 1),
}


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_golden_in_float64(index):
  assert CASES == 2
  zoo.check_small("vitamin", index)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(CASES))
def test_golden_in_float32(index):
  zoo.check_small("vitamin", index, "float32")


def test_counts_and_preprocessing():
  zoo.check_facts("vitamin")
  zoo.check_sizes("vitamin", [NAME])


@pytest.mark.slow
def test_all_counts():
  zoo.check_sizes("vitamin", vitamin.VARIANTS)


@pytest.fixture(scope="module")
def tiny():
  return zoo.Tiny(NAME, **SMALL)


def test_tiny(tiny):
  tiny.check_names()
  tiny.check_chain()
  tiny.check_bfloat16(0.05)
  assert tiny.taps["stem"].shape == (4, 6, 16)
  first = rules.first_conv(tiny.model)
  assert first == "patch_embed.backbone.stem.conv1.weight"


def test_gradients(tiny):
  tiny.check_gradients()


def test_towers_of_open_clip(tiny):
  tensors = convert.to_timm(tiny.model, tiny.variables)
  tensors["head.bias"][:] = 0
  file = {
    f"visual.trunk.{name}": value
    for name, value in tensors.items()
    if not name.startswith("head")
  }
  file["visual.head.proj.weight"] = tensors["head.weight"]
  file["text.positional_embedding"] = np.zeros((3, 4), np.float32)
  again = convert.to_timm(tiny.model, convert.from_timm(tiny.model, file))
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value)


def test_saved_models_keep_their_options(tiny, tmp_path):
  convert.save_timm(tiny.model, tiny.variables, tmp_path, name=NAME)
  model, variables = convert.load_pretrained(NAME, tmp_path)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"pos_embed": "sincos"}, "pos_embed is 'sincos'; allowed"),
    ({"conv_dims": (8,)}, "conv_dims is .* 2 positive integers"),
    ({"mlp_layer": "swiglu"}, "mlp_layer is 'swiglu'; allowed"),
    ({"patch_size": 8}, "patch_size is 8; allowed"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(NAME, **fields)


def test_wrong_images(tiny):
  with pytest.raises(ValueError, match="do not tile an image of 40 x 48"):
    tiny.run(tiny.variables, np.zeros((1, 40, 48, 3), np.float32))
