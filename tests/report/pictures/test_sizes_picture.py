from __future__ import annotations

import numpy as np
import pytest
import sheets

from kd_jax.report.pictures import look, patch_colours, sizes

RNG = np.random.default_rng(0)


def smooth(side, seed=0):
  """Maps that vary slowly, on a grid of this side."""
  turn = np.random.default_rng(seed).normal(size=(3, 9))
  y, x = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2, indexing="ij")
  waves = np.stack([x, y, np.sin(6 * x) * y], -1)
  each = waves + 0.2 * np.arange(3)[:, None, None, None]
  return np.float32(each @ turn)


def images(count=3):
  image = RNG.integers(0, 256, (count, 16, 16, 3), np.uint8)
  return look.Images(image, np.full(count, -1))


def test_likeness_is_of_the_same_places():
  small, large = smooth(4), smooth(8)
  assert sizes.likeness(small, small) == pytest.approx(1, 1e-5)
  assert 0.97 < sizes.likeness(small, large) < 1
  assert abs(sizes.likeness(small, large[:, ::-1, ::-1])) < 0.8
  assert sizes.likeness(small, 2 * small.mean((0, 1, 2)) - small) < -0.99


def test_one_colour_means_one_score_at_every_size():
  scores = patch_colours.together([smooth(4), smooth(8)])
  both = np.concatenate([x.reshape(-1, 3) for x in scores])
  np.testing.assert_allclose(both.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(both.std(0), 1, atol=1e-6)
  rgb = patch_colours.colours_of(scores)
  flat = np.concatenate([x.reshape(-1, 3) for x in rgb])
  inside = (flat > 0) & (flat < 1)
  for k in range(3):
    kept = inside[:, k]
    assert np.corrcoef(flat[kept, k], both[kept, k])[0, 1] > 0.999


def test_the_sheet_has_a_column_per_network_and_size():
  seen = {
    "teacher": {24: {"final": smooth(6)}},
    "student": {16: {"final": smooth(4, 1)}, 32: {"final": smooth(8, 1)}},
    "other": {16: {"stage3": smooth(4)}, 32: {"stage4": smooth(4)}},
  }
  png, words = sizes.draw(images(), seen)
  assert sheets.pixels(png).shape[1] == 900
  assert "The teacher always sees 24." in words
  assert "Cosine with the student's patches at 16: 1.00 at 32." in words
  assert "the other, which has no map of 16 positions at every size" in words
  alone = sizes.draw(images(), {"other": seen["other"]})
  assert alone.png is None and alone.words.startswith("No patches at several")
