from __future__ import annotations

import numpy as np
import sheets

from kd_jax.report.pictures import attention, look


def looked(**seen):
  image = np.full((3, 40, 40, 3), 128, np.uint8)
  images = look.Images(image, np.full(3, -1))
  return look.Looked(images, images, seen, {})


def seen(weights):
  return look.Seen(np.zeros((3, 1)), {}, weights)


def test_heat_is_where_the_weights_are():
  weights = np.zeros((4, 4), np.float32)
  weights[0, 3] = 0.2
  image = np.full((40, 40, 3), 128, np.uint8)
  found = attention.overlaid(image, weights)
  assert found.shape == (40, 40, 3) and found.max() <= 1
  light = found.sum(-1)
  assert light[3, 37] == light.max() > 1.5 > light[30, 10] + 0.5
  np.testing.assert_allclose(found[30, 10], found[35, 20])
  # Weights that are alike are no heat, and a factor changes nothing.
  np.testing.assert_allclose(attention.overlaid(image, 3 * weights), found)
  assert np.ptp(attention.overlaid(image, np.ones((4, 4)))) < 0.05


def test_those_without_attention_are_left_out():
  weights = np.random.default_rng(0).uniform(size=(3, 4, 4))
  given = looked(teacher=seen(weights), student=seen(None))
  png, words = attention.draw(given)
  assert sheets.pixels(png).shape[1] == 900
  why = "whose network shows no attention over the whole image"
  assert words.endswith(f"Left out: the student, {why}.")
  none = attention.draw(looked(student=seen(None)))
  said = f"No maps of attention. Left out: the student, {why}."
  assert none == (None, said)
  assert attention.draw(looked(student=seen(np.nan * weights))) == none
