"""ViTamin against timm."""

from __future__ import annotations

import numpy as np
import pytest
from families import FAMILIES

from kd_jax import convert, models
from kd_jax.convert import rules

NAME = "vitamin_small_224"


@pytest.fixture(scope="module")
def tiny():
  return FAMILIES["vitamin"].tiny()


def test_name_of_the_first_convolution(tiny):
  first = rules.first_conv(tiny.model)
  assert first == "patch_embed.backbone.stem.conv1.weight"


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


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"pos_embed": "sincos"}, "pos_embed is 'sincos'; allowed"),
    ({"conv_dims": (8,)}, "conv_dims is .* 2 positive integers"),
    ({"mlp_layer": "swiglu"}, "mlp_layer is 'swiglu'; allowed"),
    ({"patch_size": 8}, "patch_size is 8; allowed"),
    ({"dynamic_img_pad": True}, "is for patches; here convolutions"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(NAME, **fields)


def test_wrong_images(tiny):
  with pytest.raises(ValueError, match="do not tile an image of 40 x 48"):
    tiny.run(tiny.variables, np.zeros((1, 40, 48, 3), np.float32))
