from __future__ import annotations

import itertools

import jax
import numpy as np
import photographs
import pytest
import sheets

from kd_jax import create_model
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits, folder
from kd_jax.report.pictures import look, neighbours
from kd_jax.report.plots import COLORS
from kd_jax.teachers import random

VIEW = Preprocess(8, crop_pct=1.0, interpolation="bilinear")
NET = {
  "layers": (1, 1, 1, 1),
  "channels": (8, 8, 16, 24),
  "stem_width": 4,
  "stem_type": "cifar",
  "num_classes": 0,
  "input_size": (3, 8, 8),
}


def pixels_as_feature(image, whole):
  del whole
  return look.Seen(image.reshape(len(image), -1).astype(np.float32))


def draw(*args, **options):
  return neighbours.draw(look.collect(*args, **options)).png


def test_cosine_ignores_length_and_sorts():
  gallery = np.array([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
  found = neighbours.nearest(np.array([[5.0, 0.1]]), gallery, 3)
  assert found.index.tolist() == [[0, 2, 1]]
  assert found.cosine[0, 0] == pytest.approx(5 / np.hypot(5, 0.1))
  few = neighbours.nearest(np.ones((2, 2)), gallery, 9)
  assert few.index.shape == (2, 4) and few.index[0, 0] == 2


@pytest.fixture
def found(monkeypatch):
  """What `draw` hands to `sheet`: [(queries, gallery, neighbours)]."""
  kept = []
  sheet = neighbours.sheet
  monkeypatch.setattr(
    neighbours, "sheet", lambda *args: kept.append(args) or sheet(*args)
  )
  return kept


def test_the_teacher_finds_an_image_that_is_in_the_gallery(found):
  teacher = look.of_teacher(*random.load("resnet18", "", NET))
  model = create_model("resnet18", **{**NET, "channels": (4, 8, 8, 12)})
  image = np.zeros((1, 8, 8, 3), np.float32)
  variables = model.init(jax.random.key(0), image)
  networks = {
    "teacher": teacher,
    "student": look.of_network(model, variables, "pooled"),
  }
  queries, gallery = digits.Source("test[:20]"), digits.Source("test[:90]")
  png = draw(queries, gallery, VIEW, networks, count=5)
  ((few, many, nearest),) = found
  assert few.image.shape == (5, 8, 8, 3) and many.image.shape == (90, 8, 8, 3)
  assert list(nearest) == ["teacher", "student"]
  for name in networks:
    index, cosine = nearest[name].index, nearest[name].cosine
    assert index.shape == (5, 4)
    np.testing.assert_array_equal(many.image[index[:, 0]], few.image)
    np.testing.assert_allclose(cosine[:, 0], 1, atol=1e-5)
    assert (np.diff(cosine, axis=1) <= 0).all()
  assert (nearest["teacher"].index != nearest["student"].index).any()
  # Each feature is that of the network on this very view.
  own = teacher(few.image, False).feature[0]
  nearby = many.image[nearest["teacher"].index[0]]
  others = teacher(nearby, False).feature
  lengths = np.linalg.norm(own) * np.linalg.norm(others, axis=1)
  np.testing.assert_allclose(
    others @ own / lengths, nearest["teacher"].cosine[0], atol=1e-5
  )
  assert sheets.pixels(png).shape[1] == 900


def test_queries_of_the_same_source_are_not_in_the_gallery(found, tmp_path):
  source = folder.Source(str(photographs.save(tmp_path / "all")))
  view = Preprocess(16, crop_pct=1.0)
  networks = {"student": pixels_as_feature}
  png = draw(source, source, view, networks, count=4)
  ((few, many, nearest),) = found
  assert len(few.label) == 4 and len(many.label) == 12
  assert nearest["student"].index.shape == (4, 8)
  for one, other in itertools.product(few.image, many.image):
    assert (one != other).any()
  assert {few.name(row) for row in range(4)} <= set(photographs.CLASSES)
  # The nearest image stands beside its query, larger; its caption says
  # whether it is of the same class.
  picture = sheets.pixels(png)[..., :3]
  side = (900 - 20) // 9 - 10
  middle = picture[54 + side // 2, side + 30 + side // 2].astype(int)
  nearby = many.image[nearest["student"].index[0, 0]].astype(int)
  assert np.abs(nearby[7:9, 7:9].reshape(-1, 3) - middle).sum(1).min() < 3
  hits = many.label[nearest["student"].index] == few.label[:, None]
  for kind, color in ((True, COLORS[2]), (False, COLORS[1])):
    distance = np.abs(picture.astype(int) - sheets.colour(color)).sum(-1)
    assert (distance < 6).any() == (hits == kind).any()


def test_time_bounds_the_gallery(found):
  source = digits.Source("train")
  networks = {"student": pixels_as_feature}
  draw(source, source, VIEW, networks, count=3, seconds=0)
  draw(source, source, VIEW, networks, count=99, most=40)
  (_, hurried, _), (few, many, _) = found
  assert len(hurried.label) == look.CHUNK
  assert len(few.label) == look.CHUNK and len(many.label) == 40
  assert len(set(many.label)) > 5  # drawn from all over the source


def test_labels_of_other_classes_are_not_compared(found, monkeypatch):
  written = []
  text = neighbours.sheet_lib.Sheet.text

  def keep(sheet, words, *place, **style):
    written.append(words)
    text(sheet, words, *place, **style)

  monkeypatch.setattr(neighbours.sheet_lib.Sheet, "text", keep)
  low = digits.Source("test", classes=(0, 1))
  high = digits.Source("test", classes=(5, 6))
  for queries in (high, low):
    networks = {"student": pixels_as_feature}
    draw(queries, low, VIEW, networks, count=2)
  headings = [words for words in written if words.startswith("student")]
  assert headings == ["student", "student: 16 of 16 of the same class"]
  assert {few.name(0) for few, _, _ in found} <= {"0", "1", "5", "6"}
