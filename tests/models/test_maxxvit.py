"""CoAtNet and MaxViT against timm."""

from __future__ import annotations

import goldens as gw
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.maxxvit import blocks, maxxvit

CASES = [facts["case"][0] for facts, _ in gw.small("maxxvit")]
QUICK = {"coatnet_rmlp_1_rw_224", "maxvit_tiny_tf_224"}
SMALL = {
  "img_size": 64,
  "embed_dim": (16, 16, 16, 32),
  "depths": (1, 1, 1, 1),
  "stem_width": (8, 16),
  "transformer_dim_head": 8,
}


@pytest.mark.parametrize(
  "index",
  [
    pytest.param(i, marks=() if name in QUICK else pytest.mark.slow, id=name)
    for i, name in enumerate(CASES)
  ],
)
def test_golden_in_float64(index):
  zoo.check_small("maxxvit", index)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(CASES)), ids=CASES)
def test_golden_in_float32(index):
  zoo.check_small("maxxvit", index, "float32")


def test_counts_and_preprocessing():
  zoo.check_facts("maxxvit")
  zoo.check_sizes("maxxvit", ["test_coatnet", "test_maxvit"])


@pytest.mark.slow
def test_all_counts():
  zoo.check_sizes("maxxvit", maxxvit.VARIANTS)


@pytest.fixture(scope="module")
def tiny():
  mixed = {"block_type": ("M", "PM", ["C", "T"], "T")}
  return zoo.Tiny("maxvit_rmlp_base_rw_224", **SMALL, **mixed)


def test_tiny(tiny):
  tiny.check_names()
  tiny.check_chain()
  tiny.check_bfloat16(0.1)
  sizes = [tiny.taps[f"stage{k}"].shape[1:] for k in (1, 2, 3, 4)]
  assert sizes == [(16, 16, 16), (8, 8, 16), (4, 4, 16), (2, 2, 32)]
  assert tiny.taps["pooled"].shape == (4, 768)


@pytest.mark.slow
def test_gradients(tiny):
  # Softmax and normalisation hide what is added to every key.
  tiny.check_gradients(invisible=("rel_pos/fc2/bias",))


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


def test_saved_models_keep_their_options(tiny, tmp_path):
  convert.save_timm(tiny.model, tiny.variables, tmp_path, name=tiny.name)
  model, variables = convert.load_pretrained(tiny.name, tmp_path)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


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
