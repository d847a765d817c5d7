from __future__ import annotations

import numpy as np
import pytest
import sheets

from kd_jax import interfaces
from kd_jax.report.pictures import detections as pictures
from kd_jax.report.pictures import palette
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.transfer.average_precision import detections, images, truth
from kd_jax.transfer.average_precision.found import Found

SIDE = (sheet_lib.WIDTH - 10) // 2
TOP = 74  # Of the first image.
NAMES = ("cat", "dog")


class Photos(interfaces.DataSource):
  """Grey images with an object and a crowd; the network finds every other."""

  box_names = NAMES

  def __len__(self):
    return 4

  def __getitem__(self, index):
    return {"image": np.full((89, 178, 3), 100, np.uint8)}

  def objects(self, index):
    masks = np.zeros((2, 89, 178), bool)
    masks[0, 20:60, 40:60] = masks[1, 10:30, 120:160] = True
    return {
      "size": (89, 178),
      "boxes": np.array([[40, 20, 80, 60], [120, 10, 160, 30]], np.float32),
      "classes": np.array([1, 0], np.int32),
      "ignored": np.array([False, True]),
      "area": np.array([800, 800], np.float32),
      "masks": masks,
    }


@pytest.fixture
def matched():
  known = truth.collect(Photos())
  found = [
    Found(
      index,
      np.array([[40, 20, 80, 60], [0, 0, 20, 20]], np.float32),
      np.array([0.9, 0.3], np.float32),
      np.array([index % 2, 0], np.int32),
      np.ones((2, 7, 7)),
    )
    for index in range(4)
  ]
  return images.matched(known, detections.collect(known, found))


def colour_at(found, x, y, column=0):
  """Of a pixel of the first image; the sheet shows it 2.5 times as large."""
  place = (round(TOP + 2.5 * y), round(column * (SIDE + 10) + 2.5 * x))
  return found[place][:3].astype(int)


def test_truth_stands_beside_the_prediction(matched):
  png = pictures.draw(pictures.shown(Photos(), matched, [1, 0]), NAMES)
  found = sheets.pixels(png)
  assert found.shape[:2] == (round(54 + 2 * (SIDE / 2 + 30)), sheet_lib.WIDTH)
  dog = palette.colours(3)[2]
  for column, last in ((0, 100), (1, 0.5 * dog + 50)):
    # The mask of the truth is the left half of its box.
    for x, wanted in ((50, 0.5 * dog + 50), (72, last)):
      np.testing.assert_allclose(
        colour_at(found, x, 40, column), wanted, atol=1
      )
  # The box: dog's colour on the edge, then a thin white line.
  np.testing.assert_array_equal(colour_at(found, 60, 60.3), dog)
  np.testing.assert_array_equal(colour_at(found, 60, 60.9), 255)
  np.testing.assert_allclose(colour_at(found, 140, 20), 50, atol=1)  # ignored
  np.testing.assert_allclose(colour_at(found, 140, 20, 1), 100, atol=1)
  # Detections below the least score are not drawn.
  np.testing.assert_allclose(colour_at(found, 10, 10, 1), 100, atol=1)


def test_titles_count_and_labels_name(matched, monkeypatch):
  words = []
  for name in ("text", "label"):
    keep = getattr(sheet_lib.Sheet, name)
    monkeypatch.setattr(
      sheet_lib.Sheet,
      name,
      lambda self, *a, keep=keep, **k: (
        words.append(a[0]) or keep(self, *a, **k)
      ),
    )
  drawn = pictures.extremes(Photos(), matched, 2)
  assert list(drawn) == ["best", "worst"]
  assert "Best images by F1 (scores from 0.5 on)" in words
  assert words.count("dog") == 4 and words.count("ignored") == 4
  assert words.count("dog 0.90") == words.count("cat 0.90") == 2
  assert "image 3: 1 of 1 found, 0 wrong" in words
  assert "image 2: 0 of 1 found, 1 wrong" in words
  assert list(pictures.extremes(Photos(), matched, 4)) == ["best"]


def test_the_surest_mask_is_on_top():
  image = np.zeros((4, 4, 3), np.uint8)
  masks = [np.eye(4, dtype=bool), np.ones((4, 4), bool)]
  colours = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)
  found = pictures.overlaid(image, masks, colours)
  assert found[1, 1].tolist() == [100, 0, 0]
  assert found[0, 1].tolist() == [0, 50, 0]
  assert not image.any()
  np.testing.assert_array_equal(pictures.overlaid(image, [], colours), image)


def test_objects_of_an_image_of_another_size(matched):
  with pytest.raises(
    ValueError, match="image 1 has 89 x 90 pixels .* 89 x 178"
  ):
    pictures.of(np.zeros((89, 90, 3), np.uint8), matched, 1)
