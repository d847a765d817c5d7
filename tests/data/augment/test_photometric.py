import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from kd_jax.data.augment import photometric
from kd_jax.data.augment.photometric import Colours

PHOTO = load_sample_image("flower.jpg")[100:160, 200:290]


def reference(image, colours):
  """MMSegmentation's formulas, in RGB, one after the other."""

  def convert(values, alpha=1.0, beta=0.0):
    values = values.astype(np.float32) * alpha + beta
    return np.clip(values, 0, 255).astype(np.uint8)

  image = convert(image, beta=colours.brightness)
  if colours.contrast_first:
    image = convert(image, alpha=colours.contrast)
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
  hsv[..., 1] = convert(hsv[..., 1], alpha=colours.saturation)
  hsv[..., 0] = (hsv[..., 0].astype(int) + colours.hue) % 180
  image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  if not colours.contrast_first:
    image = convert(image, alpha=colours.contrast)
  return image


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("hue", [-18, 17])
def test_formulas(first, hue):
  colours = Colours(20.5, 1.3, 0.6, hue, first)
  found = photometric.distort(PHOTO, colours)
  np.testing.assert_array_equal(found, reference(PHOTO, colours))
  assert np.abs(found.astype(int) - PHOTO).mean() > 10


def test_nothing_is_changed_where_nothing_is_asked():
  np.testing.assert_array_equal(photometric.distort(PHOTO, Colours()), PHOTO)
  # One after the other, each by itself.
  darker = photometric.distort(PHOTO, Colours(brightness=-10.0))
  wanted = np.clip(PHOTO.astype(int) - 10, 0, 255)
  np.testing.assert_array_equal(darker, wanted)
  gray = photometric.distort(PHOTO, Colours(saturation=0.0))
  assert np.ptp(gray, axis=-1).max() == 0
  half = photometric.distort(PHOTO, Colours(contrast=0.5))
  np.testing.assert_array_equal(half, PHOTO // 2)


def test_what_is_drawn():
  rng = np.random.default_rng(0)
  found = [photometric.draw(rng.random(9), 1.0) for _ in range(2000)]
  bright, contrast, saturation, hue, first = np.transpose(found)
  ranges = {32: bright, 0.5: contrast - 1, 0.500001: saturation - 1}
  for most, values in ranges.items():
    changed = values[values != 0]
    assert 0.46 < len(changed) / 2000 < 0.54
    assert -most <= changed.min() < -0.98 * most
    assert 0.98 * most < changed.max() <= most
    assert abs(np.mean(changed)) < 0.06 * most
  assert set(hue) == set(range(-18, 18))
  assert 0.45 < np.mean(first) < 0.55
  pairs = np.corrcoef([bright, contrast, saturation, hue])
  assert np.abs(pairs - np.eye(4)).max() < 0.08


def test_strength():
  numbers = np.array([0.1, 0.99, 0.3, 0.1, 0.9, 0.1, 0.2, 0.1, 0.8])
  whole, half = (photometric.draw(numbers, s) for s in (1.0, 0.5))
  assert half.brightness == pytest.approx(whole.brightness / 2)
  assert half.contrast - 1 == pytest.approx((whole.contrast - 1) / 2)
  assert whole.hue == 10 and half.hue == 5
  assert photometric.draw(numbers, 0.0) == Colours()
