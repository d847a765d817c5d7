from __future__ import annotations

import numpy as np
import pytest
import sheets
from scipy.spatial import distance

from kd_jax.report.pictures import embedding, look

RNG = np.random.default_rng(0)
LABEL = np.repeat([0, 1, 2], 12)
CENTRES = RNG.normal(size=(3, 16))
FEATURES = 4 * CENTRES[LABEL] + 0.3 * RNG.normal(size=(36, 16))


def looked(features, label, absent=None):
  image = np.zeros((len(label), 8, 8, 3), np.uint8)
  image[..., 0] = 60 * (label + 1)[:, None, None]
  images = look.Images(image, label, ("a", "b", "c"))
  return look.Looked(images, images, {}, {"student": features}, absent or {})


@pytest.fixture(scope="module")
def places():
  return embedding.places(FEATURES)


def test_groups_lie_together(places):
  assert places.shape == (36, 2)
  np.testing.assert_allclose([places.min(0), places.max(0)], [[0, 0], [1, 1]])
  between = distance.squareform(distance.pdist(places))
  np.fill_diagonal(between, np.inf)
  assert (LABEL[between.argmin(1)] == LABEL).all()


def test_the_length_of_a_feature_does_not_matter(places):
  lengths = 2.0 ** RNG.integers(-3, 4, (36, 1))
  np.testing.assert_array_equal(embedding.places(lengths * FEATURES), places)


def test_thumbnails_stand_at_their_places(places, monkeypatch):
  monkeypatch.setattr(embedding, "places", lambda features: places)
  png, words = embedding.draw(looked(FEATURES, LABEL), "student")
  assert words.startswith("36 images, framed by class (3), placed by t-SNE")
  picture = sheets.pixels(png)
  assert picture.shape == (900, 900, 4)
  # The last one is on top of all others.
  left, top = 3 + places[-1] * (900 - 46 - 6)
  middle = picture[round(top) + 23, round(left) + 23]
  assert middle.tolist() == [180, 0, 0, 255]
  frame = picture[round(top) + 23, round(left) - 2, :3].astype(int)
  wanted = sheets.colour("tab:green")
  assert np.abs(frame - wanted).max() < 8


def test_no_frames_without_labels(places, monkeypatch):
  monkeypatch.setattr(embedding, "places", lambda features: places)
  for label in (np.full(36, -1), np.zeros(36, int), np.arange(36)):
    _, words = embedding.draw(looked(FEATURES, label), "student")
    assert words.startswith("36 images, placed by")


def test_what_cannot_be_placed_is_left_out_with_its_reason():
  few = embedding.draw(looked(FEATURES[:5], LABEL[:5]), "student")
  assert few.png is None
  assert few.words == (
    "No t-SNE of features. Left out: the student, which takes 8 images, and "
    "there are 5."
  )
  same = embedding.draw(looked(np.ones((9, 4)), LABEL[:9]), "student")
  assert same.words.endswith("whose features are the same for all images.")
  broken = embedding.draw(looked(np.nan * FEATURES, LABEL), "student")
  assert broken.words.endswith("whose features are not finite.")
  away = looked(FEATURES, LABEL, {"teacher": "which is stored"})
  found = embedding.draw(away, "teacher")
  assert found.words.endswith("Left out: the teacher, which is stored.")
