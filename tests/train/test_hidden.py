"""Patches are hidden as often, and as many, as was asked for."""

import jax
import numpy as np
import pytest

from kd_jax.train import hidden
from kd_jax.types import Hidden

HOW = Hidden(("stage4",), patch=4, prob=0.5, share=0.5)
IMAGE = np.random.default_rng(0).random((400, 16, 8, 3), np.float32)


def test_hidden_patches_have_the_mean_colour_and_others_stay():
  image, mask = hidden.hide(IMAGE, jax.random.key(0), HOW)
  assert mask.shape == (400, 4, 2)
  pixels = np.kron(mask, np.ones((1, 4, 4), bool))
  np.testing.assert_array_equal(image[~pixels], IMAGE[~pixels])
  mean = np.broadcast_to(IMAGE.mean((1, 2), keepdims=True), IMAGE.shape)
  np.testing.assert_allclose(image[pixels], mean[pixels], rtol=1e-5)


def test_half_of_the_images_hide_up_to_half_of_their_patches():
  _, mask = hidden.hide(IMAGE, jax.random.key(1), HOW)
  counts = np.asarray(mask).sum((1, 2))
  assert 0.4 < np.mean(counts > 0) < 0.6
  # ceil of a uniform share of 8: 1 to 4, equally often.
  assert set(counts) == {0, 1, 2, 3, 4}
  places = np.asarray(mask).mean(0)
  assert places.max() < 1.5 * places.min()
  _, again = hidden.hide(IMAGE, jax.random.key(1), HOW)
  np.testing.assert_array_equal(mask, again)


def test_patches_that_do_not_fill_the_image_are_refused():
  with pytest.raises(
    ValueError, match="patch is 4; it must divide .* 16 and 6"
  ):
    hidden.hide(IMAGE[:, :, :6], jax.random.key(0), HOW)
