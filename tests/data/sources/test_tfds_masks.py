"""Data sets for segmentation, in the forms in which TFDS prepares them."""

import dataclasses
import io
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds_lib
import tiny_tfds
from PIL import Image

from kd_jax.data import examples, pipeline
from kd_jax.data.detection import Detection
from kd_jax.data.sources import tfds

SIDES = (20, 16)


def raw(index):
  """Values 0..4 of a mask, and a row of 255."""
  rng = np.random.default_rng(index)
  values = rng.integers(0, 5, SIDES, np.uint8)
  values[0] = 255
  return values


def encoded(index):
  file = io.BytesIO()
  Image.fromarray(raw(index)).save(file, "PNG")
  return file.getvalue()


class _Masked(tfds_lib.core.GeneratorBasedBuilder):
  VERSION = tfds_lib.core.Version("1.0.0")
  SUPERVISED = None
  OTHER = {}

  def _info(self):
    return tfds_lib.core.DatasetInfo(
      builder=self,
      features=tfds_lib.features.FeaturesDict(
        {
          self.IMAGE: tfds_lib.features.Image(shape=(None, None, 3)),
          self.MASK: self.KIND,
          **self.OTHER,
        }
      ),
      supervised_keys=self.SUPERVISED,
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for index in range(6):
      other = {"label": index % 3} if self.OTHER else {}
      image = tiny_tfds.encoded("train", index)
      yield index, {self.IMAGE: image, self.MASK: encoded(index), **other}


class TinyCityscapes(_Masked):
  """Undeclared; the mask is an image of one channel."""

  IMAGE, MASK = "image_left", "segmentation_label"
  KIND = tfds_lib.features.Image(shape=(*SIDES, 1))


class TinyScenes(_Masked):
  """As scene_parse150: declared, and nothing says that it has one channel."""

  IMAGE, MASK, SUPERVISED = "image", "annotation", ("image", "annotation")
  KIND = tfds_lib.features.Image(encoding_format="png")


class TinyPets(_Masked):
  """As oxford_iiit_pet: a label is declared."""

  IMAGE, MASK, SUPERVISED = "image", "segmentation_mask", ("image", "label")
  KIND = tfds_lib.features.Image(shape=(None, None, 1))
  OTHER = {"label": tfds_lib.features.ClassLabel(names=tiny_tfds.CLASSES)}


class TinyNamed(_Masked):
  IMAGE, MASK = "image", "mask"
  KIND = tfds_lib.features.LabeledImage(labels=["a", "b", "c", "d", "e"])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  place = tmp_path_factory.mktemp("tfds")
  for cls in (TinyCityscapes, TinyScenes, TinyPets, TinyNamed):
    tiny_tfds.prepare(cls, place)
  return str(place)


@pytest.fixture
def make(data_dir, tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))

  def build(dataset, **fields):
    fields = {"masks": True, **fields}
    return tfds.Source(dataset, "train", data_dir=data_dir, **fields)

  return build


def check(source, mapping):
  """Every record against its values; order is that of the images."""
  images = [tiny_tfds.encoded("train", index) for index in range(6)]
  table = np.full(256, -1)
  table[: len(mapping)] = mapping
  seen = []
  decoded = examples.Decoded(source)
  for record in (source[index] for index in range(len(source))):
    index = images.index(record["image"])
    assert record["mask"].dtype == np.int16
    np.testing.assert_array_equal(record["mask"], table[raw(index)])
    seen.append(index)
  assert sorted(seen) == list(range(6))
  assert decoded[0]["image"].shape == (*SIDES, 3)


def test_undeclared_masks_of_one_channel(make):
  names = ("road", "sky")
  source = make(
    "tiny_cityscapes", mask_classes=names, mapping=[-1, 0, 1, 1, -1]
  )
  assert source.mask_names == names and source.num_classes == 0
  check(source, [-1, 0, 1, 1, -1])
  again = pickle.loads(pickle.dumps(source))
  assert again == source and hash(again) == hash(source)
  np.testing.assert_array_equal(again[2]["mask"], source[2]["mask"])


def test_declared_targets(make):
  source = make("tiny_scenes", mask_classes=4, mapping="shift")
  assert source.mask_names == ("0", "1", "2", "3")
  check(source, [-1, 0, 1, 2, 3])


def test_masks_beside_labels(make):
  fields = {"mask_classes": 4, "mapping": (-1, 0, 1, 2, 3)}
  source = make("tiny_pets", **fields)
  assert source.class_names == tiny_tfds.CLASSES
  check(source, [-1, 0, 1, 2, 3])
  labels = [record["label"] for record in source]
  assert source.all_labels() == labels and sorted(labels) == [0, 0, 1, 1, 2, 2]
  plain = make("tiny_pets", masks=False)
  assert plain.mask_names == () and "mask" not in plain[0]
  assert plain.fingerprint == source.fingerprint


def test_names_of_the_data_set(make):
  source = make("tiny_named")
  assert source.mask_names == ("a", "b", "c", "d", "e")
  check(source, range(5))
  assert make("tiny_named", mask_classes=6).mask_names[-1] == "5"


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (
      {"dataset": "tiny_cityscapes"},
      "masks of tiny_cityscapes/1.0.0, mask_classes: classes names 0; ",
    ),
    (
      {"dataset": "tiny_named", "mask_key": "label"},
      r"mask_key='label': tiny_named/1.0.0 has the images \['image', 'mask'\],"
      r" of which \['mask'\] have one channel; set mask_key",
    ),
    (
      {"dataset": "tiny_cityscapes", "masks": False},
      "has several: .*; set image_key",
    ),
  ],
)
def test_mistakes(make, fields, match):
  with pytest.raises(ValueError, match=match):
    make(**fields)


def test_values_without_a_class_are_named(make):
  source = make("tiny_scenes", mask_classes=4)
  match = r"annotation of tiny_scenes/1.0.0/train/0 holds 4; classes are 0\.\.3"
  with pytest.raises(ValueError, match=match):
    source[0]
  colours = make("tiny_pets", mask_key="image", image_key="segmentation_mask",
                 mask_classes=4)  # fmt: skip
  with pytest.raises(ValueError, match="JPEG changes labels|RGB, not labels"):
    colours[0]


class TinyObjects(tfds_lib.core.GeneratorBasedBuilder):
  """As coco and voc: boxes are shares of the image."""

  VERSION = tfds_lib.core.Version("1.0.0")
  BUILDER_CONFIGS = [
    tfds_lib.core.BuilderConfig(name=name) for name in ("coco", "voc", "flat")
  ]
  OTHER = {
    "coco": {"is_crowd": np.bool_, "area": np.int64},
    "voc": {"is_difficult": np.bool_},
    "flat": {"is_crowd": np.bool_, "area": np.int64},
  }

  def _info(self):
    parts = {
      "bbox": tfds_lib.features.BBoxFeature(),
      "label": tfds_lib.features.ClassLabel(names=["cat", "dog"]),
      **self.OTHER[self.builder_config.name],
    }
    image = tfds_lib.features.Image(shape=(None, None, 3))
    features = {"image": image, "objects": tfds_lib.features.Sequence(parts)}
    return tfds_lib.core.DatasetInfo(
      builder=self, features=tfds_lib.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    voc = self.builder_config.name == "voc"
    for index in range(3):
      height, width = 30 + 20 * index, 60
      flat = self.builder_config.name == "flat" and index == 1
      image = io.BytesIO()
      Image.new("RGB", (width, height), (index, 9, 9)).save(image, "PNG")
      other = {"is_difficult": True} if voc else {"is_crowd": True, "area": 77}
      boxes = [(6, 11, 20, 40), (1, 1, height, 60)][: 2 - index]
      boxes = [(6, 11, 6, 40)] if flat else boxes
      objects = [
        {
          "bbox": tfds_lib.features.BBox(
            y0 / height, x0 / width, y1 / height, x1 / width
          ),
          "label": place,
          **(other if place else {**other, list(other)[0]: False}),
        }
        for place, (y0, x0, y1, x1) in enumerate(boxes)
      ]
      yield index, {"image": image.getvalue(), "objects": objects}


@pytest.fixture(scope="module")
def objects_dir(tmp_path_factory):
  place = tmp_path_factory.mktemp("tfds_objects")
  for config in ("coco", "voc", "flat"):
    tiny_tfds.prepare(TinyObjects, place, config=config)
  return str(place)


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_boxes_in_pixels(objects_dir, kind, tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path))
  source = tfds.Source(
    f"tiny_objects/{kind}", "train", data_dir=objects_dir, boxes=True
  )
  assert source.box_names == ("cat", "dog") and source.num_classes == 0
  found = {}
  for index, (height, width) in enumerate(source.sizes()):
    record = examples.Decoded(source)[index]
    assert record["image"].shape == (height, width, 3)
    found[height] = objects = source.objects(index)
    np.testing.assert_array_equal(objects["boxes"], record["boxes"])
    assert objects["size"] == (height, width)
  assert sorted(found) == [30, 50, 70]
  # VOC counts from 1.
  shift = [kind == "voc"] * 2 + [0, 0]
  wanted = np.array([[11, 6, 40, 20], [1, 1, 60, 30]]) - shift
  np.testing.assert_allclose(found[30]["boxes"], wanted, atol=1e-4)
  assert found[30]["classes"].tolist() == [0, 1]
  assert len(found[50]["boxes"]) == 1 and found[70]["boxes"].shape == (0, 4)
  ignored, area = found[30]["ignored"].tolist(), found[30]["area"]
  if kind == "coco":
    assert ignored == [False, True] and area.tolist() == [77, 77]
    assert "difficult" not in found[30]
  else:
    assert found[30]["difficult"].tolist() == [False, True]
    assert ignored == [False, False]
    np.testing.assert_allclose(area, [30 * 15, 60 * 30], rtol=1e-5)
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.sizes(), source.sizes())
  views = Detection((32,), long=64, buckets=1)
  with pipeline.train_batches(source, views, batch_size=3, seed=0) as batches:
    assert next(batches).label.boxes.shape == (3, 100, 4)
  plain = tfds.Source(f"tiny_objects/{kind}", "train", data_dir=objects_dir)
  assert (plain.box_names, plain.sizes()) == ((), None)
  assert "boxes" not in plain[0]
  with pytest.raises(
    ValueError, match="box_key='image': .*'objects'.* are box"
  ):
    dataclasses.replace(source, box_key="image")
  with pytest.raises(ValueError, match="mask_key=''.*one channel.*masks=False"):
    dataclasses.replace(source, masks=True)


def test_a_record_with_a_bad_box_may_be_skipped(objects_dir):
  source = tfds.Source(
    "tiny_objects/flat", "train", data_dir=objects_dir, boxes=True
  )
  decoded, told = examples.Decoded(source), []
  bad = next(i for i, size in enumerate(source.sizes()) if size[0] == 50)
  match = (
    rf"tiny_objects/flat/1.0.0/train/{bad}: its box \[11, 6, 40, 6\] .*no a"
  )
  with pytest.raises(ValueError, match=match):
    decoded.readable(bad)
  skipping = dataclasses.replace(source, skip_corrupt=True)
  views = Detection((32,), long=64, buckets=1)
  with pipeline.train_batches(
    skipping, views, batch_size=1, seed=0, on_skip=told.extend
  ) as batches:
    sizes = [next(batches).label.size[0].tolist() for _ in range(6)]
  # The taller one is a portrait, which stands in for no other.
  assert told == [bad] * 2 and sizes.count([32, 38]) == 0


def test_data_without_boxes(make):
  with pytest.raises(ValueError, match=r"tiny_pets.* of which \[\] are boxes"):
    make("tiny_pets", masks=False, boxes=True)
