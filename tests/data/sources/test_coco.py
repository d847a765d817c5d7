"""Files of COCO, written to disk."""

import copy
import json
import math
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from sklearn.datasets import load_sample_image

from kd_jax.data import examples, pipeline
from kd_jax.data.detection import Detection
from kd_jax.data.sources.coco import Source

SIZES = ((60, 80), (70, 50), (40, 40), (30, 44))
TRIANGLE = [10, 5, 40, 5, 10, 50]
CROWD = [0, 70 * 20, 70 * 10, 70 * 20]  # columns 0..19 and 30..49


def packed(mask):
  return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def square(height, width, x0, y0, x1, y1):
  mask = np.zeros((height, width), np.uint8)
  mask[y0:y1, x0:x1] = 1
  return mask


def written():
  """What the JSON holds: ids in no order, one image without objects."""
  images = [
    {"id": 9 - i, "file_name": f"part/{i}.png", "height": h, "width": w}
    for i, (h, w) in enumerate(SIZES)
  ]
  text = {"size": [40, 40], "counts": packed(square(40, 40, 3, 4, 20, 30))}
  crowd = {"size": [70, 50], "counts": CROWD}
  two = [TRIANGLE, [60, 40, 79, 40, 79, 59, 60, 59]]
  rows = [
    (1, 9, 17, [10, 5, 30, 45], [TRIANGLE], 0, 675.0),
    (2, 8, 3, [0, 0, 50, 70], crowd, 1, 2800),
    (3, 8, 3, [10, 20, 30.5, 50.25], [[10, 20, 40.5, 20, 40.5, 70, 10, 70]], 0,
     None),
    (4, 9, 3, [10, 5, 69.5, 54], two, 0, 999.5),
    (5, 7, 17, [3, 4, 17, 26], text, 0, 442),
  ]  # fmt: skip
  names = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd",
           "area")  # fmt: skip
  return {
    "images": images,
    "annotations": [dict(zip(names, row, strict=True)) for row in rows],
    "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}],
  }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("coco")
  (place / "images" / "part").mkdir(parents=True)
  photo = load_sample_image("china.jpg")
  for i, (height, width) in enumerate(SIZES):
    part = photo[100 : 100 + height, 200 : 200 + width, ::-1]
    cv2.imwrite(str(place / "images" / "part" / f"{i}.png"), part)
  (place / "a.json").write_text(json.dumps(written()))
  return place


def source(folder, **fields):
  images, file = str(folder / "images"), str(folder / "a.json")
  return Source(**{"images": images, "annotations": file, **fields})


def test_records_boxes_and_ids(folder):
  found = source(folder)
  # By id of the categories; the last image has no object.
  assert found.box_names == ("car", "cat") and found.category_ids == (3, 17)
  assert len(found) == 3 and found.image_ids == [9, 8, 7]
  assert found.sizes().tolist() == [list(size) for size in SIZES[:3]]
  assert list(found.ids()) == ["part/0.png", "part/1.png", "part/2.png"]
  objects = found.objects(0)
  assert objects["size"] == (60, 80) and objects["classes"].tolist() == [1, 0]
  assert objects["boxes"].tolist() == [[10, 5, 40, 50], [10, 5, 79.5, 59]]
  assert objects["area"].tolist() == [675, 999.5]
  kinds = [objects[k].dtype for k in ("boxes", "classes", "ignored", "area")]
  assert kinds == [np.float32, np.int32, bool, np.float32]
  second = found.objects(1)
  assert second["ignored"].tolist() == [True, False]
  # 0.25 pixels beyond the edge is rounding.
  assert second["boxes"].tolist() == [[0, 0, 50, 70], [10, 20, 40.5, 70]]
  np.testing.assert_allclose(second["area"][1], 30.5 * 50)
  decoded = examples.Decoded(found)[2]
  photo = load_sample_image("china.jpg")[100:140, 200:240]
  np.testing.assert_array_equal(decoded["image"], photo)
  assert (decoded["label"], decoded["id"]) == (-1, 2)
  np.testing.assert_array_equal(decoded["boxes"], [[3, 4, 20, 30]])


def test_masks_are_those_of_pycocotools(folder):
  found = source(folder)
  for index, (height, width) in enumerate(SIZES[:3]):
    own = [
      each
      for each in written()["annotations"]
      if each["image_id"] == found.image_ids[index]
    ]
    masks = found.objects(index)["masks"]
    assert masks.shape == (len(own), height, width) and masks.dtype == bool
    for mask, annotation in zip(masks, own, strict=True):
      kept = annotation["segmentation"]
      if isinstance(kept, list) or isinstance(kept["counts"], list):
        kept = coco_mask.frPyObjects(kept, height, width)
      kept = coco_mask.merge(kept) if isinstance(kept, list) else kept
      assert coco_mask.area(kept) == mask.sum() > 100
      text = kept["counts"]
      assert packed(mask) == (
        text.decode() if isinstance(text, bytes) else text
      )
  columns = found.objects(1)["masks"][0].any(0)
  wanted = np.zeros(50, bool)
  wanted[:20] = wanted[30:] = True
  np.testing.assert_array_equal(columns, wanted)
  text = found.objects(2)["masks"][0]
  np.testing.assert_array_equal(text, square(40, 40, 3, 4, 20, 30))
  assert "masks" not in source(folder, masks=False).objects(0)


def test_what_is_kept(folder):
  every = source(folder, keep_empty=True)
  assert len(every) == 4 and every.image_ids == [9, 8, 7, 6]
  empty = every.objects(3)
  assert empty["boxes"].shape == (0, 4) and empty["masks"].shape == (0, 30, 44)
  assert source(folder, split="all[1:]").image_ids == [8, 7]
  cats = source(folder, classes=["cat"])
  assert (cats.box_names, cats.category_ids) == (("cat",), (17,))
  assert cats.image_ids == [9, 7] and cats.objects(0)["classes"].tolist() == [0]
  prints = {each.fingerprint for each in (every, source(folder), cats)}
  assert len(prints) == 3 and {len(each) for each in prints} == {16}
  again = pickle.loads(pickle.dumps(every))
  assert again == every and again.fingerprint == every.fingerprint
  np.testing.assert_array_equal(
    again.objects(0)["masks"], every.objects(0)["masks"]
  )


def test_batches_of_it(folder):
  views = Detection(
    (32, 40), long=64, buckets=1, divisor=8, masks=True, mask_size=8
  )
  with pipeline.train_batches(
    source(folder), views, batch_size=2, seed=0
  ) as batches:
    found = [next(batches) for _ in range(6)]
  for batch in found:
    known = batch.label.classes >= 0
    assert known.any(1).all() and known.sum(1).max() <= 2  # without the crowd
    assert (batch.label.masks.any((2, 3)) == known).all()


def changed(folder, tmp_path, change):
  parts = copy.deepcopy(written())
  parts = change(parts) or parts
  file = tmp_path / "changed.json"
  file.write_text(parts if isinstance(parts, str) else json.dumps(parts))
  return str(file)


def first(**fields):
  def change(parts):
    parts["annotations"][0].update(fields)

  return change


def triangle(*polygon):
  return first(segmentation=[list(polygon)])


def runs(counts, size=(60, 80)):
  return first(segmentation={"size": list(size), "counts": counts})


BAD_OBJECTS = {
  "outside": (first(bbox=[70, 5, 30, 40]), r"100, 45\].* not inside .*60x80"),
  "beyond": (first(bbox=[80.5, 5, 0.25, 40]), "is not inside the image"),
  "reversed": (first(bbox=[40, 5, -30, 40]), r"\(image 9\): its .*reversed"),
  "nan": (first(bbox=[math.nan, 5, 3, 4]), "has values that are no numbers"),
  "zero": (first(bbox=[10, 5, 0, 4]), "has no area"),
  "three": (first(bbox=[10, 5, 4]), r"bbox \[10, 5, 4\] is not 4 numbers"),
  "none": (first(bbox=None), "bbox None is not 4 numbers"),
  "category": (first(category_id=4), "of the unknown category 4"),
  "image": (first(image_id=77), "of the image 77, which is not listed"),
  "twice": (first(id=2), "annotation 2: its id comes twice"),
  "points": (triangle(1, 1, 5, 5), "mask has a polygon of 2 points; three are"),
  "odd": (triangle(1, 1, 5, 5, 5, 7, 8), "a polygon of 3.5 points"),
  "infinite": (triangle(1, 1, 5, 5, math.inf, 7), "polygon with values that"),
  "far": (triangle(1, 1, 5, 5, 1e9, 7), "polygon far outside the image"),
  "empty": (first(segmentation=[]), "its mask has no polygon"),
  "missing": (first(segmentation=None), "neither a list of polygons nor runs"),
  "no list": (first(segmentation=[7]), "a polygon that is no list of numbers"),
  "size": (runs([4800], (80, 60)), r"is of \[80, 60\] pixels, the image"),
  "short": (runs([7, 5]), "runs that are not the 4800 pixels of the image"),
  "negative": (runs([-5, 4805]), "runs that are not the 4800 pixels"),
  "packed": (runs("53"), "runs that are not the 4800 pixels"),
  "cut": (runs(packed(square(60, 80, 1, 1, 9, 9))[:-1]), "runs that are not"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_bad_objects_are_named_or_left_out(folder, tmp_path, case, caplog):
  change, match = BAD_OBJECTS[case]
  file = changed(folder, tmp_path, change)
  with pytest.raises(ValueError, match=match) as error:
    source(folder, annotations=file)
  assert "1 of 5 objects are wrong" in str(error.value)
  assert "\n" not in str(error.value) and "skip_invalid=True" in str(
    error.value
  )
  found = source(folder, annotations=file, skip_invalid=True)
  assert "1 of 5 objects are left out: annotation " in caplog.text
  ids = sum(len(found.objects(i)["classes"]) for i in range(len(found)))
  assert ids == 4


def drop(name):
  return lambda parts: parts.pop(name) and None


def entry(part, place, **fields):
  return lambda parts: parts[part][place].update(fields)


@pytest.mark.parametrize(
  ("change", "match"),
  [
    (lambda parts: json.dumps(parts)[:-90], "changed.json' is cut short or no"),
    (lambda parts: "[]", "has no list 'images'; COCO's format has"),
    (drop("annotations"), "has no list 'annotations'"),
    (lambda parts: {**parts, "categories": [3]}, "has no list 'categories'"),
    (lambda parts: {**parts, "images": []}, "lists no image"),
    (lambda parts: {**parts, "categories": []}, "has no category to learn"),
    (entry("images", 1, id=9), "2 of the images have the id 9"),
    (entry("images", 1, file_name="part/0.png"), "images have the file_name"),
    (entry("images", 1, height=0), "the image 8 needs an 'id', a 'file_name'"),
    (entry("images", 1, file_name="x.png"), "lacks 1 of the 3 .*'x.png'"),
    (entry("categories", 1, id=17), "2 of the categories have the id 17"),
    (entry("categories", 1, name="cat"), "have the name 'cat'"),
    (entry("categories", 1, id="3"), "the category '3', 'car' needs a whole"),
    (lambda parts: {**parts, "annotations": []}, "no image has an object to"),
  ],
)  # fmt: skip
def test_bad_files(folder, tmp_path, change, match):
  file = changed(folder, tmp_path, change)
  with pytest.raises(ValueError, match=match) as error:
    source(folder, annotations=file)
  assert "\n" not in str(error.value)


def test_bad_fields(folder, tmp_path):
  with pytest.raises(ValueError, match="cannot be read: No such file or dir"):
    source(folder, annotations=str(folder / "b.json"))
  with pytest.raises(ValueError, match="images='.*none' is not a directory"):
    source(folder, images=str(folder / "none"))
  with pytest.raises(ValueError, match="classes names 'dog', .* it has"):
    source(folder, classes=("dog",))
  file = changed(folder, tmp_path, entry("images", 0, height=59))
  with pytest.raises(ValueError, match="0.png: its boxes are of 59x80 pixels"):
    examples.Decoded(source(folder, annotations=file, masks=False))[0]
