from __future__ import annotations

import numpy as np
import pytest
import sheets

from kd_jax.report.pictures import masks, palette
from kd_jax.report.pictures import sheet as sheet_lib

NAMES = [f"class {i}" for i in range(21)]


def test_colours_are_those_of_voc():
  found = palette.colours(256)
  assert found[:4].tolist() == [
    [0, 0, 0],
    [128, 0, 0],
    [0, 128, 0],
    [128, 128, 0],
  ]
  assert found[15].tolist() == [192, 128, 128]  # a person
  assert found[20].tolist() == [0, 64, 128]  # a screen
  assert found[255].tolist() == [224, 224, 192]  # the border
  assert len(np.unique(found, axis=0)) == 256
  np.testing.assert_array_equal(palette.colours(7), found[:7])


def test_ignored_pixels_have_grey_stripes():
  mask = np.full((64, 64), -1, np.int16)
  mask[32:] = 15
  found = palette.painted(mask, 21)
  assert (found[32:] == [192, 128, 128]).all()
  assert np.unique(found[:32]).tolist() == [90, 170]
  assert np.ptp(found[:32], axis=-1).max() == 0


def test_truth_and_prediction_stand_beside_the_image():
  image = np.full((60, 120, 3), 100, np.uint8)
  truth, prediction = np.full((60, 120), 3), np.full((60, 120), 5)
  truth[:, 60:] = 15
  png = masks.draw([masks.Segmented(image, truth, prediction)], NAMES)
  found = sheets.pixels(png)
  side = (sheet_lib.WIDTH - 20) / 3
  middle = 54 + round(side / 4)
  columns = [side / 2, side * 1.25 + 10, side * 1.75 + 10, side * 2.5 + 20]
  colours = palette.colours(21)
  wanted = [[100, 100, 100]]
  wanted += [0.7 * colours[i] + 30 for i in (3, 15, 5)]
  for column, colour in zip(columns, wanted, strict=True):
    np.testing.assert_allclose(found[middle, int(column), :3], colour, atol=1)
  legend = found[54 + round(side / 2) + 10 :]
  for row, index in enumerate((3, 5, 15)):
    place = legend[6, int(row * sheet_lib.WIDTH / 6) + 6]
    np.testing.assert_array_equal(place[:3], colours[index])


def test_masks_of_another_size_are_refused():
  image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5), int)
  with pytest.raises(ValueError, match="resize the image to its mask"):
    masks.draw([masks.Segmented(image, mask, mask)], NAMES)
