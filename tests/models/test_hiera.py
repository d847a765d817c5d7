"""Hiera against timm."""

from __future__ import annotations

import goldens as gw
import jax
import numpy as np
import pytest
import zoo

from kd_jax import convert, models
from kd_jax.models.hiera import hiera

CASES = len(gw.small("hiera"))
NAME = "hiera_small_abswin_256"
SMALL = {
  "img_size": 64,
  "embed_dim": 8,
  "num_heads": 1,
  "stages": (1, 1, 1, 1),
  "init_values": 0.5,
}


@pytest.mark.parametrize(
  "index", [0, pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_golden_in_float64(index):
  assert CASES == 3
  zoo.check_small("hiera", index)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(CASES))
def test_golden_in_float32(index):
  zoo.check_small("hiera", index, "float32")


def test_counts_and_preprocessing():
  zoo.check_facts("hiera")
  zoo.check_sizes("hiera", ["hiera_tiny_224", NAME])


@pytest.mark.slow
def test_all_counts():
  zoo.check_sizes("hiera", hiera.VARIANTS)


@pytest.fixture(scope="module")
def tiny():
  return zoo.Tiny(NAME, **SMALL)


def test_tiny(tiny):
  tiny.check_names()
  tiny.check_chain()
  tiny.check_bfloat16(0.05)
  sizes = [tiny.taps[f"stage{k}"].shape[1:] for k in (1, 2, 3, 4)]
  assert sizes == [(16, 16, 8), (8, 8, 16), (4, 4, 32), (2, 2, 64)]


def test_gradients(tiny):
  tiny.check_gradients()


def test_windows_of_the_first_stages_do_not_see_each_other(tiny):
  """A change of one window of 8 x 8 patches stays there before stage 3."""
  x = np.array(tiny.taps["stem"])
  x[:, :8, :8] += 1
  for stage in ("stage1", "stage2"):
    x = tiny.run(tiny.variables, x, begin=stage, end=stage)[stage]
    differs = np.abs(x - tiny.taps[stage]).max((0, 3)) > 1e-4
    side = differs.shape[0] // 2
    assert differs[:side, :side].any()
    assert not differs[side:].any() and not differs[:, side:].any()


def test_original_files(tiny):
  tensors = convert.to_timm(tiny.model, tiny.variables)
  swaps = (("head.fc", "head.projection"), ("head.norm", "encoder_norm"))
  file = {}
  for name, value in tensors.items():
    for timm, theirs in swaps:
      name = name.replace(timm, theirs)
    file["pos_embed_abs" if name == "pos_embed" else name] = value
  again = convert.from_timm(tiny.model, file)
  jax.tree.map(np.testing.assert_array_equal, again, tiny.variables)


def test_saved_models_keep_their_options(tiny, tmp_path):
  convert.save_timm(tiny.model, tiny.variables, tmp_path, name=NAME)
  model, variables = convert.load_pretrained(NAME, tmp_path)
  assert model == tiny.model
  jax.tree.map(np.testing.assert_array_equal, variables, tiny.variables)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"img_size": 240}, "img_size is 240; both sides must be multiples of 32"),
    ({"embed_dim": 0}, "embed_dim is 0 and mlp_ratio 4.0; both must be > 0"),
    ({"num_heads": 5}, "num_heads is 5; it must divide embed_dim=96"),
    ({"stages": (1, 2)}, "stages is .* 4 positive integers"),
    ({"global_pool": "token"}, "global_pool is 'token'; allowed"),
  ],
)
def test_wrong_options(fields, message):
  with pytest.raises(ValueError, match=message):
    models.create_model(NAME, **fields)


def test_wrong_images(tiny):
  with pytest.raises(ValueError, match=r"images are \(96, 64\), the model has"):
    tiny.run(tiny.variables, np.zeros((1, 96, 64, 3), np.float32))
