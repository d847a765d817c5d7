"""A small VOCdevkit, written to disk."""

import pickle
import shutil

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from kd_jax.data import examples, pipeline
from kd_jax.data.detection import Detection
from kd_jax.data.detection_batches import eval_batches
from kd_jax.data.sources.voc import Source
from kd_jax.transfer.average_precision import truth

XML = """<annotation><filename>x.jpg</filename>
<size><width>{}</width><height>{}</height><depth>3</depth></size>
{}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>
<ymax>2</ymax></bndbox></part></object>"""
CAT = ("cat", 0, 1, 1, 80, 60)
IMAGES = {
  "2007": {
    "000005": ((80, 60), [CAT, ("dog", 1, 11, 21, 30, 40)]),
    "000007": ((50, 70), [("car", 1, 5, 6, 50, 70)]),
    "000009": ((40, 40), []),
  },
  "2012": {"2008_000002": ((44, 30), [("tvmonitor", 0, 34, 11, 44, 30)])},
}


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
  root = tmp_path_factory.mktemp("VOCdevkit")
  photo = load_sample_image("china.jpg")[..., ::-1]
  for year, images in IMAGES.items():
    place = root / f"VOC{year}"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
      (place / name).mkdir(parents=True)
    for name, ((width, height), objects) in images.items():
      part = photo[:height, :width]
      cv2.imwrite(str(place / "JPEGImages" / f"{name}.jpg"), part)
      inner = "".join(OBJECT.format(*each) for each in objects)
      text = XML.format(width, height, inner)
      (place / "Annotations" / f"{name}.xml").write_text(text)
    listed = "".join(f"{name}\n" for name in images)
    (place / "ImageSets" / "Main" / "trainval.txt").write_text(listed)
  test = root / "VOC2007" / "ImageSets" / "Main" / "test.txt"
  test.write_text("000007  1\n000005 -1\n\n")
  return root


def test_boxes_count_from_0_and_difficult_ones_are_learnt(kit):
  source = Source(str(kit))
  assert len(source.box_names) == 20 and source.box_names[14] == "person"
  assert source.image_ids == ["000005", "000007", "2008_000002"]
  assert source.sizes().tolist() == [[60, 80], [70, 50], [30, 44]]
  first = source.objects(0)
  assert first["boxes"].tolist() == [[0, 0, 80, 60], [10, 20, 30, 40]]
  assert first["boxes"].dtype == np.float32 and "masks" not in first
  assert first["classes"].tolist() == [7, 11]
  assert first["area"].tolist() == [4800, 400]
  assert first["difficult"].tolist() == [False, True]
  assert first["ignored"].tolist() == [False, False]
  assert source.objects(2)["boxes"].tolist() == [[33, 10, 44, 30]]
  record = examples.Decoded(source)[1]
  assert record["image"].shape == (70, 50, 3) and record["id"] == 1
  assert source.describe(2).endswith("VOC2012/JPEGImages/2008_000002.jpg")
  views = Detection((32,), long=64, buckets=1)
  with pipeline.train_batches(source, views, batch_size=3, seed=0) as batches:
    labels = [next(batches).label for _ in range(6)]
  counts = {tuple((label.classes >= 0).sum(1)) for label in labels}
  assert counts <= {(1, 1, 1), (1, 2, 1), (2, 1, 2), (1, 2, 2), (2, 1, 1)}
  assert any(2 in each for each in counts)


def test_difficult_objects_may_be_ignored(kit):
  source = Source(str(kit), keep_difficult=False)
  assert source.image_ids == ["000005", "2008_000002"]
  assert source.objects(0)["ignored"].tolist() == [False, True]
  views = Detection((60,), long=80, buckets=1, hflip=0.0)
  record = examples.Decoded(source)[0]
  label = views.train(record, np.random.default_rng)["label"]
  assert label.classes[0, :2].tolist() == [7, -1]
  for keep in (True, False):  # both count the same
    whole = Source(str(kit), keep_difficult=keep, keep_empty=True)
    found = truth.collect(whole)
    assert np.flatnonzero(found.counts).tolist() == [7, 19]
    assert len(found.sizes) == 4 and found.image_ids == tuple(whole.image_ids)


def test_splits_years_and_empty_images(kit):
  test = Source(str(kit), "2007_test")
  assert list(test.ids()) == ["000007", "000005"]
  every = Source(str(kit), "2007_trainval", keep_empty=True)
  assert every.image_ids == ["000005", "000007", "000009"]
  assert every.objects(2)["boxes"].shape == (0, 4)
  prints = {s.fingerprint for s in (test, every, Source(str(kit)))}
  assert len(prints) == 3 and {len(each) for each in prints} == {16}
  again = pickle.loads(pickle.dumps(test))
  assert again == test and again[0]["image"] == test[0]["image"]
  views = Detection(test_short=32, test_long=64)
  with eval_batches(every, views, batch_size=2) as batches:
    found = [batch.index.tolist() for batch in batches]
  assert found == [[0, 2], [1, -1]]


@pytest.fixture
def copied(kit, tmp_path):
  shutil.copytree(kit, tmp_path / "kit")
  return tmp_path / "kit"


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (("cow ", 0, 5, 5, 90, 20), r"\[4, 4, 90, 20\] .* is not inside the image"),
    (("cat", 0, 20, 5, 10, 20), r"\[19, 4, 10, 20\] .* is reversed"),
    (("cat", 0, "nan", 5, 10, 20), "has values that are no numbers"),
    (("cat", 0, "", 5, 10, 20), "has values that are no numbers"),
    (("cat", 0, 11, 5, 10, 20), "has no area"),
    (("kat", 0, 1, 5, 10, 20), "its name 'kat' is no class; there are"),
  ],
)
def test_bad_objects_are_named_or_left_out(copied, fields, match, caplog):
  file = copied / "VOC2007" / "Annotations" / "000005.xml"
  two = OBJECT.format(*CAT) + OBJECT.format(*fields)
  file.write_text(XML.format(80, 60, two))
  with pytest.raises(
    ValueError, match=f"object 2 of 000005.xml: .*{match}"
  ) as e:
    Source(str(copied))
  assert "(1 of 4 objects are wrong)" in str(e.value) and "\n" not in str(
    e.value
  )
  found = Source(str(copied), skip_invalid=True)
  assert found.objects(0)["classes"].tolist() == [7]
  assert "1 of 4 objects are left out: object 2 of 000005" in caplog.text


def test_bad_files(copied):
  place = copied / "VOC2007"
  xml, listed = place / "Annotations", place / "ImageSets" / "Main"
  (listed / "a.txt").write_text("000005\n000006\n")
  with pytest.raises(ValueError, match="000006.xml: cannot be read: No such"):
    Source(str(copied), "2007_a")
  (xml / "000006.xml").write_text(XML.format(80, 60, OBJECT.format(*CAT)))
  with pytest.raises(
    ValueError, match="lacks 1 of the 2 images .* '000006.jpg'"
  ):
    Source(str(copied), "2007_a")
  (xml / "000006.xml").write_text(XML.format(80, 60, "")[:-20])
  with pytest.raises(ValueError, match="000006.xml: is cut short or no XML"):
    Source(str(copied), "2007_a")
  (xml / "000006.xml").write_text(XML.format("x", 60, ""))
  with pytest.raises(ValueError, match="needs a 'height' .* '60' and 'x'"):
    Source(str(copied), "2007_a")
  (listed / "a.txt").write_text("000009\n")
  with pytest.raises(ValueError, match="no image has an object to learn"):
    Source(str(copied), "2007_a")
  (listed / "a.txt").write_text("000005\n000005\n")
  with pytest.raises(ValueError, match="a.txt names an image twice"):
    Source(str(copied), "2007_a")
  (xml / "000005.xml").write_text(XML.format(81, 60, OBJECT.format(*CAT)))
  with pytest.raises(
    ValueError, match="boxes are of 60x81 pixels, the image 60x8"
  ):
    examples.Decoded(Source(str(copied)))[0]


@pytest.mark.parametrize(
  ("split", "match"),
  [
    ("2007", "split='2007' is not 'YEAR_LIST' or several"),
    ("2007_test+2007_test", "is not 'YEAR_LIST'"),
    ("2007_test+2007_trainval", "names 2 images twice; take lists that"),
    ("2010_test", "there is no folder '.*VOC2010/JPEGImages'"),
    ("2012_test", "test.txt: cannot be read"),
  ],
)
def test_bad_splits(kit, split, match):
  with pytest.raises(ValueError, match=match):
    Source(str(kit), split)
