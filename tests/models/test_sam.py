"""The image encoder of Segment Anything against timm."""

from __future__ import annotations

import numpy as np
import pytest
from families import FAMILIES
from flax import linen as nn

from kd_jax import convert, models
from kd_jax.models.sam import block

NAME = "samvit_base_patch16"


@pytest.fixture(scope="module")
def tiny():
  return FAMILIES["sam"].tiny()


class Bias(block.Attention):
  @nn.compact
  def __call__(self, q):
    return self.bias_of(q)


def test_bias_is_of_rows_and_columns():
  """With one channel the bias is a difference's embedding times the query."""
  layer = Bias(1, size=(2, 3), table=(2, 3))
  rows, columns = (
    np.float32([[1], [2], [4]]),
    np.float32([[8], [16], [32], [64], [128]]),
  )
  variables = {"params": {"rel_pos_h": rows, "rel_pos_w": columns}}
  query = np.full((1, 6, 1, 1), 3, np.float32)
  bias = layer.apply(variables, query)
  assert bias.shape == (1, 1, 6, 6)
  # From (0, 2) to (1, 0): one row up, two columns to the right.
  assert bias[0, 0, 2, 3] == 3 * (1 + 128)
  assert bias[0, 0, 4, 4] == 3 * (2 + 32)


def test_original_files(tiny):
  tensors = convert.to_timm(tiny.model, tiny.variables)
  file = {
    "image_encoder." + name.replace("mlp.fc", "mlp.lin"): value
    for name, value in tensors.items()
    if not name.startswith("head")
  }
  file["mask_decoder.x"] = np.zeros(2, np.float32)
  model = tiny.model.clone(num_classes=0)
  again = convert.to_timm(model, convert.from_timm(model, file))
  assert again.keys() == {k for k in tensors if not k.startswith("head")}
  for name, value in again.items():
    np.testing.assert_array_equal(value, tensors[name])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"window_size": 0}, "window_size is 0; it must be > 0"),
    ({"neck_chans": 0}, "neck_chans is 0; it must be > 0, or None"),
    ({"depth": 8}, r"global_attn_indexes has \[8, 11\]; the blocks are 0 to 7"),
    ({"img_size": 1000}, "do not tile an image of 1000 x 1000"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(NAME, **fields)


def test_wrong_images(tiny):
  with pytest.raises(ValueError, match="do not tile an image of 30 x 32"):
    tiny.run(tiny.variables, np.zeros((1, 30, 32, 3), np.float32))
