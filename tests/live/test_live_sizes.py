"""Dense taps for images of other sizes against timm, in float64."""

import jax
import numpy as np
import pytest
import timm_pair
import torch

from kd_jax import convert, models
from kd_jax.models.blocks.tokens import patches

DINOV3, DINOV2 = "vit_small_patch16_dinov3", "vit_small_patch14_dinov2"
PAD = {"dynamic_img_pad": True}
HOME = {"img_size": 224}


def both(name, fields):
  """(timm's, ours, our variables), of four blocks, in float64."""
  theirs = timm_pair.timm_model(
    name, num_classes=0, depth=4, dynamic_img_size=True, **fields
  ).double()
  ours = models.create_model(
    name, num_classes=0, depth=4, **timm_pair.RAW, **fields
  )
  variables = convert.from_timm(ours, timm_pair.arrays(theirs))
  return theirs, ours, jax.tree.map(lambda a: a.astype(np.float64), variables)


def theirs_of(model, x):
  """The map of every block."""
  with torch.no_grad():
    return model.forward_intermediates(
      timm_pair.nchw(x), intermediates_only=True, norm=False
    )


@pytest.mark.parametrize(
  ("name", "side", "fields", "grid"),
  [
    (DINOV3, 224, {}, 14),
    (DINOV3, 256, {}, 16),
    (DINOV3, 518, PAD, 33),
    (DINOV2, 518, {}, 37),
    (DINOV2, 224, {}, 16),
    (DINOV2, 518, HOME, 37),
    (DINOV2, 256, {**HOME, **PAD}, 19),
  ],
)
def test_maps(name, side, fields, grid):
  x = timm_pair.images(side, n=1)
  with jax.enable_x64(True):
    theirs, ours, variables = both(name, fields)
    taps = jax.device_get(jax.jit(ours.apply)(variables, x))
  assert ours.grid_for((side, side)) == (grid, grid)
  for i, want in enumerate(theirs_of(theirs, x)):
    want = want.permute(0, 2, 3, 1).numpy()
    tokens = taps[f"block{i:02d}"]
    got = patches.tokens_to_map(tokens, ours.num_prefix_tokens, (grid, grid))
    assert got.shape == want.shape and np.ptp(want) > 0
    # timm's sines are in float32.
    assert np.abs(got - want).max() < 1e-6 * np.abs(want).max(), i


def test_both_refuse_images_that_patches_do_not_tile():
  theirs, ours, variables = both(DINOV3, {})
  x = timm_pair.images(518, n=1)
  with pytest.raises(AssertionError, match="518.* divisible by patch size"):
    theirs_of(theirs, x)
  with pytest.raises(ValueError, match="do not tile .*518 x 518"):
    ours.apply(variables, x)
