from __future__ import annotations

import blocks
import jax
import numpy as np
import photographs
import pytest
import sheets

from kd_jax.data import pipeline
from kd_jax.data.augment import crops
from kd_jax.data.dense import Dense
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits, folder, synthetic
from kd_jax.report.pictures import training_views
from kd_jax.report.plots import COLORS
from kd_jax.train import step, views

CROPS = {"image_size": 32, "num_crops": 3, "train_interpolation": "bilinear"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  root = photographs.save(tmp_path_factory.mktemp("photographs") / "all")
  return folder.Source(str(root))


def see(preprocess, **mix):
  """The step's part."""
  cut = views.Cut(preprocess.image_size, "bilinear")
  mixing = views.Mix(**mix)
  crops = preprocess.num_crops
  return step.Settings({}, cut=cut, mix=mixing, crops=crops).view


def first_batch(source, preprocess, rows):
  stream = pipeline.train_batches(source, preprocess, batch_size=rows, seed=5)
  with stream:
    return next(stream)


@pytest.mark.parametrize("canvas", [0, 192])
def test_views_are_those_of_the_first_batch(photos, canvas):
  erase = {"erase_prob": 0.5, "rand_ops": 2} if not canvas else {}
  preprocess = Preprocess(**CROPS, canvas=canvas, **erase)
  look = see(preprocess, cutmix=1.0)
  shown = training_views.collect(photos, preprocess, look, count=4, seed=5)
  batch = first_batch(photos, preprocess, 4 * 3)
  wanted = look(batch, jax.random.key(5)).image
  np.testing.assert_array_equal(shown.views.reshape(-1, 32, 32, 3), wanted)
  assert np.ptp(shown.views) > 0.5
  plain = see(preprocess)
  other = training_views.collect(photos, preprocess, plain, count=4, seed=5)
  assert np.abs(other.views - shown.views).max() > 0.1  # it did mix


@pytest.mark.parametrize("canvas", [0, 192])
def test_boxes_enclose_what_the_views_show(photos, canvas):
  preprocess = Preprocess(**CROPS, canvas=canvas, hflip=0.5)
  shown = training_views.collect(
    photos, preprocess, see(preprocess), count=6, seed=5
  )
  assert shown.boxes.shape == (6, 3, 5)
  assert set(shown.boxes[..., 4].ravel()) == {0, 1}
  assert {image.shape[:2] for image in shown.originals} <= set(
    photographs.SIZES
  )
  for image, boxes, several in zip(
    shown.originals, shown.boxes, shown.views, strict=True
  ):
    for box, view in zip(boxes, several, strict=True):
      inside = crops.crop(image, crops.Box(*np.rint(box[:4]).astype(int)))
      found = crops.resize(inside, 32, 32, interpolation="bilinear")
      found = crops.mirror(found) if box[4] else found
      # A canvas holds large images smaller, so that pixels differ a little.
      assert np.abs(found / 255 - view).mean() < (0.03 if canvas else 1e-6)


def test_the_picture_has_boxes_where_the_crops_are(photos):
  preprocess = Preprocess(**CROPS)
  shown = training_views.collect(
    photos, preprocess, see(preprocess), count=2, seed=5
  )
  found = sheets.pixels(training_views.draw(shown))[..., :3]
  # The original fills a square of 120 pixels below the title.
  height, width = shown.originals[0].shape[:2]
  scale = 120 / max(height, width)
  left = 2 + (120 - scale * width) / 2
  upper = 34 + (120 - scale * height) / 2
  # The last box covers the others where they meet.
  top, start, tall, wide, _ = shown.boxes[0, 2]
  rows = (upper + scale * top - 1, upper + scale * (top + tall) + 1)
  columns = (left + scale * start - 1, left + scale * (start + wide) + 1)
  middle = (round(sum(rows) / 2), round(sum(columns) / 2))
  color = np.array(sheets.colour(COLORS[2]))
  edges = [(round(y), middle[1]) for y in rows]
  edges += [(middle[0], round(x)) for x in columns]
  for y, x in edges:
    near = found[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
    assert np.abs(near - color).sum(1).min() < 30
  assert np.abs(found[middle].astype(int) - color).sum() > 30


def test_digits_are_moved_and_have_no_box():
  source = digits.Source("train")
  preprocess = Preprocess(
    8, augment="shift", shift=2, crop_pct=1.0, interpolation="bilinear"
  )
  shown = training_views.collect(
    source, preprocess, see(preprocess), count=5, seed=5
  )
  assert shown.boxes is None and shown.views.shape == (4, 1, 8, 8, 3)
  order = pipeline.shuffled(source, 5, 4)
  labels = [source[order[i]]["label"] for i in range(4)]
  assert shown.names == tuple(map(str, labels))
  moves = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
  for image, (view,) in zip(shown.originals, shown.views, strict=True):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0))) / 255
    moved = [padded[2 - y : 10 - y, 2 - x : 10 - x] for y, x in moves]
    assert min(np.abs(view - m).max() for m in moved) < 1e-6
  picture = sheets.pixels(training_views.draw(shown))
  # Three pairs in a row; the first view is the second square of 134 pixels.
  places = np.rint((np.arange(8) + 0.5) * 134 / 8).astype(int)
  seen = picture[34 + places][:, 2 + 134 + 8 + places, :3]
  np.testing.assert_array_equal(seen, np.rint(255 * shown.views[0, 0]))


def test_images_without_labels_have_no_names():
  source = synthetic.Source(size=40, length=3, num_classes=0)
  preprocess = Preprocess(16, num_crops=8)
  shown = training_views.collect(
    source, preprocess, see(preprocess), count=6, seed=0
  )
  assert shown.names == ("", "") and shown.views.shape[:2] == (2, 8)
  tall = sheets.pixels(training_views.draw(shown)).shape[0]
  assert tall < 360


def test_images_with_masks():
  source, preprocess = blocks.Source(), Dense(24)
  look = see(preprocess)
  shown = training_views.collect(source, preprocess, look, count=4, seed=5)
  batch = first_batch(source, preprocess, 4)
  np.testing.assert_allclose(shown.views[:, 0], batch.image / 255, atol=1e-6)
  assert shown.boxes is None and np.ptp(shown.views) > 0.5
