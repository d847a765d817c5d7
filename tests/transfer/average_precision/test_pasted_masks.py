from __future__ import annotations

import numpy as np
import pytest

from kd_jax.transfer.average_precision.paste import paste


def reference(mask, box, size):
  """Every pixel by itself, four samples each, nothing beyond the mask."""
  side, (x0, y0, x1, y1) = len(mask), (float(x) for x in box)

  def sample(row, column):
    inside = 0 <= row < side and 0 <= column < side
    return float(mask[row, column]) if inside else 0.0

  found = np.zeros(size, bool)
  for y in range(size[0]):
    for x in range(size[1]):
      v = (y + 0.5 - y0) / (y1 - y0) * side - 0.5
      u = (x + 0.5 - x0) / (x1 - x0) * side - 0.5
      row, column = int(np.floor(v)), int(np.floor(u))
      a, b = v - row, u - column
      value = (
        (1 - a) * (1 - b) * sample(row, column)
        + (1 - a) * b * sample(row, column + 1)
        + a * (1 - b) * sample(row + 1, column)
        + a * b * sample(row + 1, column + 1)
      )
      found[y, x] = value >= 0.5
  return found


BOXES = [
  (4.3, 5.1, 30.7, 22.9),
  (0, 0, 40, 30),  # all of the image
  (10, 8, 11, 9),  # one pixel
  (10.2, 8.2, 10.4, 8.4),  # less than one
  (-6.5, -3, 12, 50),  # beyond the image
  (12, 3, 14, 29),
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("side", [5, 14])
def test_every_pixel_is_that_of_the_reference(box, side):
  rng = np.random.default_rng(0)
  for _ in range(4):
    mask = rng.random((side, side)).astype(np.float32)
    found = paste(mask, np.array(box, np.float32), (30, 40))
    wanted = reference(mask, np.array(box, np.float32), (30, 40))
    np.testing.assert_array_equal(found, wanted)


def test_a_full_mask_fills_its_box():
  for value, inside in ((1.0, True), (0.49, False)):
    found = paste(np.full((7, 7), value), np.array([3, 4, 17, 15]), (20, 25))
    wanted = np.zeros((20, 25), bool)
    wanted[4:15, 3:17] = inside
    # Half of a sample beside the edge, the mask fades to nothing.
    np.testing.assert_array_equal(found[5:14, 4:16], wanted[5:14, 4:16])
    assert not (found & ~wanted).any()
