import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sklearn.datasets import load_sample_image

from kd_jax.data import examples
from kd_jax.data.detection import Detection
from kd_jax.data.sources import coco
from kd_jax.transfer.average_precision import truth

PHOTO = Image.fromarray(load_sample_image("china.jpg"))
SIZES = {7: (40, 60), 3: (50, 30), 12: (24, 24), 5: (30, 45)}
POLYGONS = [[5, 4, 40.1, 6.5, 30, 30.25], [42, 20, 55, 20, 55, 39, 42, 39]]
RUNS = [60, 30, 100, 50, 60 * 40 - 240]


def runs(size):
  """A square's compressed run lengths."""
  covered = np.zeros(size, np.uint8, order="F")
  covered[5:20, 3:12] = 1
  found = coco_mask.encode(covered)
  return {"size": list(size), "counts": found["counts"].decode()}


def annotation(number, image, category, box, shape, **fields):
  found = {"id": number, "image_id": image, "category_id": category}
  return {**found, "bbox": box, "segmentation": shape, "iscrowd": 0, **fields}


def content():
  crowd = {"size": [40, 60], "counts": RUNS}
  return {
    "images": [
      {"id": n, "file_name": f"{n:03}.jpg", "height": h, "width": w}
      for n, (h, w) in SIZES.items()
    ],
    "categories": [{"id": 9, "name": "roof"}, {"id": 2, "name": "tree"}],
    "annotations": [
      annotation(1, 7, 9, [5, 4, 50, 35.5], POLYGONS, area=700.5),
      annotation(2, 3, 2, [3, 5, 9, 15], runs((50, 30))),
      annotation(3, 7, 2, [1, 0, 4, 40], crowd, iscrowd=1, area=80),
      annotation(4, 7, 2, [0, 0, 10.5, 8], [[0, 0, 10.5, 0, 10.5, 8, 0, 8]]),
      annotation(5, 12, 2, [2, 2, 5, 5], runs((24, 24)), iscrowd=1),
    ],
  }


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def place(tmp_path):
  (tmp_path / "images").mkdir()
  for number, (height, width) in SIZES.items():
    photo = PHOTO.crop((number, 100, number + width, 100 + height))
    photo.save(tmp_path / f"images/{number:03}.jpg")
  return tmp_path


def make(place, data=None, **fields):
  path = place / "instances.json"
  path.write_text(json.dumps(content() if data is None else data))
  return coco.Source(str(place / "images"), str(path), **fields)


def test_what_the_file_says(place):
  source = make(place)
  assert (len(source), source.num_classes) == (2, 0)
  assert source.box_names == ("tree", "roof")
  assert (source.category_ids, source.image_ids) == ((2, 9), (3, 7))
  assert list(source.ids()) == ["003.jpg", "007.jpg"]
  assert source.all_labels() == [-1, -1]
  assert source.sizes().tolist() == [[50, 30], [40, 60]]
  record = source[1]
  assert record["image"] == (place / "images/007.jpg").read_bytes()
  assert (record["label"], record["id"], record["size"]) == (-1, 1, (40, 60))
  boxes = [[5, 4, 55, 39.5], [1, 0, 5, 40], [0, 0, 10.5, 8]]
  assert record["boxes"].tolist() == boxes
  assert record["classes"].tolist() == [1, 0, 0]
  assert record["ignored"].tolist() == [False, True, False]
  assert record["area"].tolist() == [700.5, 80, 84]
  types = [record[name].dtype for name in ("boxes", "classes", "area")]
  assert types == [np.float32, np.int32, np.float32] and "masks" not in record
  assert examples.Decoded(source)[0]["image"].shape == (50, 30, 3)
  again = pickle.loads(pickle.dumps(source))
  assert again == source and hash(again) == hash(source)
  assert again.objects(-1)["boxes"].tolist() == boxes


def test_images_without_objects(place):
  source = make(place, keep_empty=True)
  assert source.image_ids == (3, 5, 7, 12)
  empty = source.objects(1)
  assert empty["boxes"].shape == (0, 4) and empty["classes"].shape == (0,)
  assert source.objects(3)["ignored"].tolist() == [True]
  assert source.fingerprint != make(place).fingerprint
  found = truth.collect(source)
  assert found.counts.tolist() == [2, 1] and found.image_ids == (3, 5, 7, 12)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_masks_are_those_of_pycocotools(place):
  source = make(place, masks=True, keep_empty=True)
  theirs = COCO(source.annotations)
  for index, name in enumerate(source.image_ids):
    record = source[index]
    raw = [a for a in content()["annotations"] if a["image_id"] == name]
    assert len(record["masks"]) == len(raw)
    for mask, each in zip(record["masks"], raw, strict=True):
      assert mask.dtype == bool and mask.any()
      np.testing.assert_array_equal(mask, theirs.annToMask(each))
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(
    np.stack(list(again.objects(2)["masks"])),
    np.stack(list(source.objects(2)["masks"])),
  )
  assert truth.collect(source).masks is not None


def test_views_with_masks(place):
  sides = {"short": (40,), "long": 64, "buckets": 1, "hflip": 0.0}
  views = Detection(**sides, max_objects=4, masks=True, mask_size=14)
  record = examples.Decoded(make(place, masks=True))[1]
  label = views.train(record, np.random.default_rng)["label"]
  assert label.classes[0].tolist() == [1, 0, -1, -1]  # the crowd is left out
  assert label.boxes[0, 0].tolist() == [5, 4, 55, 39.5]
  shares = label.masks[0].mean((1, 2)).tolist()
  areas = [mask.sum() for mask in record["masks"]]
  assert shares[0] == pytest.approx(areas[0] / (50 * 35.5), abs=0.03)
  assert shares[1] > 0.9 and shares[2:] == [0, 0]


def test_some_classes(place):
  source = make(place, classes=["roof"])
  assert (source.box_names, source.category_ids) == (("roof",), (9,))
  assert source.image_ids == (7,)
  assert source.objects(0)["classes"].tolist() == [0]
  both = make(place, classes=("roof", "tree"))
  assert both.objects(1)["classes"].tolist() == [0, 1, 1]
  with pytest.raises(ValueError, match="'sky' is no category of .* roof, tree"):
    make(place, classes=("sky",))


NAN = float("nan")
BAD = {
  "image": ({"image_id": 8}, "its image_id 8 is not among the images"),
  "kind": ({"category_id": 1}, "its category_id 1 is not among the cat"),
  "outside": ({"bbox": [20, 5, 15, 9]}, "reaches outside its image of 50x30"),
  "before": ({"bbox": [-4, 5, 15, 9]}, "reaches outside its image of 50x30"),
  "reversed": ({"bbox": [9, 9, -4, 5]}, "must have a width and a height"),
  "zero": ({"bbox": [9, 9, 4, 0.0]}, "must have a width and a height above 0"),
  "nan": ({"bbox": [9, 9, NAN, 4]}, "must be 4 finite numbers"),
  "short": ({"bbox": [9, 9, 4]}, r"bbox \[9, 9, 4\] must be 4 finite"),
  "none": ({"bbox": None}, "bbox None must be 4 finite"),
  "two points": ({"segmentation": [[1, 2, 3, 4]]}, "three points or more"),
  "odd": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "three points or more"),
  "words": ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "is no number"),
  "empty": ({"segmentation": []}, "it has no segmentation, and masks=True"),
  "runs": (
    {"segmentation": {"size": [30, 50], "counts": "P1"}},
    r"the size \[30, 50\], and its image \[50, 30\]",
  ),
  "sum": (
    {"segmentation": {"size": [50, 30], "counts": [3, 4]}},
    "whose sum is 1500, the pixels of its image",
  ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_annotations(place, name, caplog):
  change, match = BAD[name]
  data = content()
  bad = {**data["annotations"][1], **change, "id": 77}
  data["annotations"].append(bad)
  match = rf"annotation 77 of image .*{match}.*\(1 of 6 .*skip_invalid=True"
  with pytest.raises(ValueError, match=match):
    make(place, data, masks=True)
  source = make(place, data, masks=True, skip_invalid=True)
  assert source.left_out == 1
  assert "invalid annotations left out: 1, such as annotation 77" in caplog.text
  whole = make(place, masks=True)
  for index in range(2):
    found, expected = source.objects(index), whole.objects(index)
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])
    assert len(found["masks"]) == len(expected["masks"])


def test_polygons_are_looked_at_for_masks_only(place):
  data = content()
  data["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
  assert len(make(place, data).objects(1)["boxes"]) == 3


def test_damaged_run_lengths_show_when_they_are_read(place):
  data = content()
  data["annotations"][1]["segmentation"]["counts"] = "zzz1P"
  masks = make(place, data, masks=True).objects(0)["masks"]
  with pytest.raises(ValueError, match="003.jpg: the run lengths of its obj"):
    masks[0]


def test_images_of_another_size(place):
  PHOTO.crop((0, 0, 30, 49)).save(place / "images/003.jpg")
  match = r"003.jpg: its boxes are of 50x30 pixels, the image 49x30 \(height x"
  with pytest.raises(ValueError, match=match):
    examples.Decoded(make(place))[0]


def test_missing_images(place):
  for number in (3, 7, 12):  # the last one is not asked for
    (place / f"images/{number:03}.jpg").unlink()
  match = r"2 of 2 images of .*json' are missing, such as 003.jpg, 007.jpg;"
  with pytest.raises(ValueError, match=match):
    make(place)
  with pytest.raises(ValueError, match="photos' is no folder; set --config"):
    coco.Source(str(place / "photos"), str(place / "instances.json"))


@pytest.mark.parametrize(
  ("key", "entries", "match"),
  [
    ("images", content()["images"] * 2, "the id 7 comes twice in 'images'"),
    ("categories", [{"name": "a"}], "the id None is no id in 'categories'"),
    ("categories", [{"id": 3}], "one or more, each with a name"),
    ("images", [{"id": 3, "width": 4}], "file_name=None, height=None, width=4"),
    ("images", [], "it names no image"),
    ("annotations", [], "none of its 4 images has an object to learn"),
    ("annotations", {}, "it has no list 'annotations'"),
  ],
)
def test_files_of_another_kind(place, key, entries, match):
  with pytest.raises(ValueError, match=match):
    make(place, {**content(), key: entries})


def test_files_that_cannot_be_read(place):
  images, path = str(place / "images"), place / "a.json"
  with pytest.raises(ValueError, match="a.json': cannot be read, No such file"):
    coco.Source(images, str(path))
  path.write_text(json.dumps(content())[:-30])
  with pytest.raises(ValueError, match=r"a.json': cut short, or no JSON \("):
    coco.Source(images, str(path))
  path.write_text("[]")
  with pytest.raises(ValueError, match="it has no list 'images'"):
    coco.Source(images, str(path))
