"""Hiera against timm."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from families import FAMILIES

from kd_jax import convert, models

NAME = "hiera_small_abswin_256"


@pytest.fixture(scope="module")
def tiny():
  return FAMILIES["hiera"].tiny()


def test_windows_of_the_first_stages_do_not_see_each_other(tiny):
  """A change of one window of 8 x 8 patches stays there before stage 3."""
  x = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype("float32")
  x[1] = x[0]
  x[1, :8, :8] += 1
  for stage in ("stage1", "stage2"):
    x = tiny.run(tiny.variables, x, begin=stage, end=stage)[stage]
    differs = np.abs(x[0] - x[1]).max(-1) > 1e-4
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
