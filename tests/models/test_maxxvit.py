"""CoAtNet and MaxViT against timm."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import zoo
from families import FAMILIES

from kd_jax import convert, models
from kd_jax.models.maxxvit import blocks

SMALL = {
  "img_size": 64,
  "embed_dim": (16, 16, 16, 32),
  "depths": (1, 1, 1, 1),
  "stem_width": (8, 16),
  "transformer_dim_head": 8,
}


@pytest.fixture(scope="module")
def tiny():
  return FAMILIES["maxxvit"].tiny()


def test_a_grid_is_of_places_far_apart():
  x = np.arange(6 * 4, dtype=np.float32).reshape(1, 6, 4, 1)
  sets = blocks.grid_cut(x, (3, 2))
  assert sets.shape == (4, 6, 1)
  np.testing.assert_array_equal(sets[0, :, 0], [0, 2, 8, 10, 16, 18])
  np.testing.assert_array_equal(blocks.grid_join(sets, (3, 2), (6, 4)), x)


def test_files_of_other_windows():
  name = "maxvit_tiny_tf_224"
  fields = {**SMALL, "head_hidden_size": 16}
  small = models.create_model(name, **fields)
  large = small.clone(img_size=128)
  file = convert.to_timm(small, zoo.drawn(small))
  found = convert.to_timm(large, convert.from_timm(large, file))
  key = "stages.0.blocks.0.attn_grid.attn.rel_pos.relative_position_bias_table"
  assert file[key].shape == (2, 3, 3) and found[key].shape == (2, 7, 7)
  # The nearest places keep their biases.
  middle = found[key][:, 2:5, 2:5]
  np.testing.assert_allclose(middle, file[key], rtol=1e-5)


def test_layers_that_were_convolutions(tiny):
  file = convert.to_timm(tiny.model, tiny.variables)
  key = "stages.0.blocks.0.attn_grid.mlp.fc1.weight"
  file[key] = file[key][:, :, None, None]
  again = convert.from_timm(tiny.model, file)
  jax.tree.map(np.testing.assert_array_equal, again, tiny.variables)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"img_size": 240}, "img_size is 240; both sides must be multiples of 32"),
    ({"transformer_partition_ratio": 16}, "ratio is 16; .* a multiple of 32"),
    ({"block_type": ("C", "C", "T")}, "one entry for each of 4 stages"),
    ({"block_type": ("C", "C", "T", "X")}, "block_type is 'X'; allowed"),
    ({"conv_pool_type": "mean"}, "conv_pool_type is 'mean'; allowed"),
    ({"transformer_rel_pos_type": "none"}, "transformer_rel_pos_type is"),
    (
      {"transformer_dim_head": 36},
      "transformer_dim_head is 36; it must divide",
    ),
    ({"depths": (1, 1)}, "depths is .* 4 positive integers"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model("coatnet_0_rw_224", **fields)


def test_wrong_images(tiny):
  with pytest.raises(ValueError, match=r"images are \(96, 64\), the model has"):
    tiny.run(tiny.variables, np.zeros((1, 96, 64, 3), np.float32))
