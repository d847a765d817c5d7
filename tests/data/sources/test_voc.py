import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data import examples
from kd_jax.data.detection import Detection
from kd_jax.data.sources import voc
from kd_jax.transfer.average_precision import truth

PHOTO = Image.fromarray(load_sample_image("flower.jpg"))
CAT = ("cat", (1, 1, 20, 30), 0)
# Of each image: height, width, (name, corners, difficult) of its objects.
IMAGES = {
  "2007/000005": (40, 60, [CAT, ("tvmonitor", (11, 5, 60, 40), 1)]),
  "2007/000007": (50, 30, [("person", (3, 4.5, 3, 9), 0)]),
  "2007/000009": (50, 30, []),
  "2012/2008_000001": (30, 30, [CAT, CAT]),
}


def xml(height, width, objects):
  found = f"<size><width>{width}</width><height>{height}</height></size>"
  for name, corners, difficult in objects:
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(
      f"<{k}>{v}</{k}>" for k, v in zip(names, corners, strict=True)
    )
    found += f"<object><name>{name}</name><difficult>{difficult}</difficult>"
    found += f"<bndbox>{box}</bndbox>"
    # The head of a person is no object.
    found += "<part><name>head</name><bndbox/></part></object>"
  return f"<annotation>{found}</annotation>"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def place(tmp_path):
  for key, (height, width, objects) in IMAGES.items():
    year, name = key.split("/")
    root = tmp_path / f"VOC{year}"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
      (root / folder).mkdir(parents=True, exist_ok=True)
    image = PHOTO.crop((200, 100, 200 + width, 100 + height))
    image.save(root / f"JPEGImages/{name}.jpg")
    (root / f"Annotations/{name}.xml").write_text(xml(height, width, objects))
    with open(root / "ImageSets/Main/trainval.txt", "a") as file:
      file.write(f"{name}\n")
  (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("000007\n\n")
  return tmp_path


def annotations(place, name):
  return place / f"VOC2007/Annotations/{name}.xml"


def test_what_the_files_say(place):
  source = voc.Source(str(place), keep_empty=True)
  assert (len(source), source.num_classes) == (4, 0)
  assert len(source.box_names) == 20 and source.box_names[7] == "cat"
  names = ("000005", "000007", "000009", "2008_000001")
  assert source.image_ids == names
  assert list(source.ids())[3] == "VOC2012/JPEGImages/2008_000001.jpg"
  assert source.all_labels() == [-1] * 4
  assert source.sizes().tolist() == [[40, 60], [50, 30], [50, 30], [30, 30]]
  record = source[0]
  path = place / "VOC2007/JPEGImages/000005.jpg"
  assert record["image"] == path.read_bytes()
  assert source.describe(0) == str(path)
  assert (record["label"], record["id"], record["size"]) == (-1, 0, (40, 60))
  assert record["boxes"].tolist() == [[0, 0, 20, 30], [10, 4, 60, 40]]
  assert record["classes"].tolist() == [7, 19]
  assert record["difficult"].tolist() == [False, True]
  assert record["ignored"].tolist() == [False, False]
  assert record["area"].tolist() == [600, 1800]
  assert source.objects(1)["boxes"].tolist() == [[2, 3.5, 3, 9]]
  assert source.objects(2)["boxes"].shape == (0, 4)
  assert source.objects(-1)["classes"].tolist() == [7, 7]
  again = pickle.loads(pickle.dumps(source))
  assert again == source and hash(again) == hash(source)
  assert again[1]["image"] == source[1]["image"]
  for index in range(4):
    assert examples.Decoded(source)[index]["image"].ndim == 3


def test_difficult_objects_are_learnt_but_not_counted(place):
  sides = {"short": (40,), "long": 60, "buckets": 1, "hflip": 0.0}
  views = Detection(**sides, max_objects=4)
  for keep, learnt in ((True, [7, 19, -1, -1]), (False, [7, -1, -1, -1])):
    source = voc.Source(str(place), "2007_trainval", keep_difficult=keep)
    record = examples.Decoded(source)[0]
    label = views.train(record, np.random.default_rng)["label"]
    assert label.classes[0].tolist() == learnt
    counts = truth.collect(source).counts
    assert (counts[7], counts[14], counts[19]) == (1, 1, 0)


def test_images_without_objects(place):
  source = voc.Source(str(place))
  assert source.image_ids == ("000005", "000007", "2008_000001")
  whole = voc.Source(str(place), keep_empty=True)
  assert whole.fingerprint != source.fingerprint
  assert source[2]["image"] == whole[3]["image"] and source[2]["id"] == 2
  hard = xml(50, 30, [("dog", (3, 3, 9, 9), 1)])
  annotations(place, "000007").write_text(hard)
  assert len(voc.Source(str(place), "2007_test")) == 1
  with pytest.raises(ValueError, match="no image has an object to learn; set"):
    voc.Source(str(place), "2007_test", keep_difficult=False)


def test_splits(place):
  test = voc.Source(str(place), "2007_test")
  assert test.image_ids == ("000007",)
  both = voc.Source(str(place), "2012_trainval+2007_test")
  assert both.image_ids == ("2008_000001", "000007")
  assert both[1]["image"] == test[0]["image"]
  turned = voc.Source(str(place), "2007_test+2012_trainval")
  prints = {each.fingerprint for each in (test, both, turned)}
  assert len(prints) == 3


def test_other_classes(place):
  source = voc.Source(str(place), "2007_test", classes=["dog", "person"])
  assert source.box_names == ("dog", "person")
  assert source.objects(0)["classes"].tolist() == [1]
  match = r"object 1 of .*000005.xml: its name is 'cat', and the classes are \["
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place), classes=("dog", "person"))


BAD = {
  "reversed": (("dog", (5, 5, 3, 9), 0), r"box \[4, 4, 3, 9\] .* is reversed"),
  "upwards": (("dog", (5, 5, 9, 3), 0), "is reversed"),
  "flat": (("dog", (5, 5, 9, 4), 0), "has no area, after 1 is taken from"),
  "outside": (("dog", (5, 5, 90, 9), 0), "not inside the image, which has 50x"),
  "before": (("dog", (-4, 5, 9, 9), 0), "not inside the image, which has 50x"),
  "nan": (("dog", (5, "nan", 9, 9), 0), "values that are no numbers"),
  "empty": (("dog", (5, 5, "", 9), 0), "values that are no numbers"),
  "words": (("dog", (5, 5, "wide", 9), 0), "values that are no numbers"),
  "name": (("kat", (5, 5, 9, 9), 0), r"'kat', and the classes are \['cat', "),
}


@pytest.mark.parametrize("name", BAD)
def test_objects_that_cannot_be(place, name, caplog):
  bad, match = BAD[name]
  annotations(place, "000007").write_text(xml(50, 30, [CAT, bad]))
  match = rf"object 2 of .*000007.xml: .*{match}.*\(1 of 6 .*skip_invalid=True"
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place))
  source = voc.Source(str(place), skip_invalid=True)
  assert source.objects(1)["classes"].tolist() == [7]
  assert "1 of 6 objects are left out: object 2 of" in caplog.text


@pytest.mark.parametrize(
  ("text", "match"),
  [
    (xml(50, 30, [CAT])[:-20], r"000007.xml: cut short, or no XML \("),
    ("<html/>", "it holds <html>, and VOC's files <annotation>"),
    (xml(50, "", [CAT]), "its size has the width ''; it must be a whole"),
    (xml(0, 30, [CAT]), "its size has the height '0'; it must be a whole"),
  ],
)
def test_damaged_files(place, text, match):
  annotations(place, "000007").write_text(text)
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place))


def test_missing_files(place):
  annotations(place, "000009").unlink()
  with pytest.raises(ValueError, match="000009.xml: cannot be read, No such"):
    voc.Source(str(place))
  (place / "VOC2007/JPEGImages/000009.jpg").unlink()
  match = "1 of 4 images of split=.* missing, such as VOC2007/JPEGImages/000009"
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place))
  match = "VOC2010/ImageSets/Main/train.txt' cannot be read .*; set --config.d"
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place), "2010_train")
  (place / "VOC2012/JPEGImages").rename(place / "VOC2012/images")
  with pytest.raises(ValueError, match="no folder '.*VOC2012/JPEGImages'; set"):
    voc.Source(str(place), "2012_trainval")


@pytest.mark.parametrize(
  ("split", "match"),
  [
    ("trainval", "'trainval' is no YEAR_LIST; write 2007_trainval"),
    ("2007_val", "Main/val.txt' cannot be read"),
    ("2007_empty", "Main/empty.txt' names no image"),
    ("2007_test+2007_trainval", "names the image '000007' 2 times; take"),
  ],
)
def test_splits_that_cannot_be(place, split, match):
  (place / "VOC2007/ImageSets/Main/empty.txt").write_text("\n")
  with pytest.raises(ValueError, match=match):
    voc.Source(str(place), split)


def test_images_of_another_size(place):
  PHOTO.crop((0, 0, 60, 41)).save(place / "VOC2007/JPEGImages/000005.jpg")
  match = "000005.jpg: its boxes are of 40x60 pixels, the image 41x60"
  with pytest.raises(ValueError, match=match):
    examples.Decoded(voc.Source(str(place)))[0]
