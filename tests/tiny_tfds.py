"""Small TFDS data sets of real photographs, prepared by the tests."""

import functools
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_image

CLASSES = ("sky", "temple", "petal")
COUNTS = {"train": 24, "test": 6}


@functools.cache
def photo(name):
  return Image.fromarray(load_sample_image(f"{name}.jpg")).resize((160, 120))


def tile(split, index):
  """A (20, 16, 3) piece of a photograph; no two are alike."""
  number = index + 24 * (split == "test")
  source = photo("flower" if index % 3 == 2 else "china")
  left, top = number % 8 * 18, number // 8 * 24
  return np.asarray(source)[top : top + 20, left : left + 16]


@functools.cache
def encoded(split, index):
  """A PNG where `index` is odd, else a JPEG."""
  file = io.BytesIO()
  kind = "PNG" if index % 2 else "JPEG"
  Image.fromarray(tile(split, index)).save(file, kind)
  return file.getvalue()


def name(split, index):
  return f"{CLASSES[index % 3]}/{split}{index:02d}.jpg"


class _Builder(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")
  FEATURES = {}
  SUPERVISED = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(self.FEATURES),
      supervised_keys=self.SUPERVISED,
    )

  def _split_generators(self, dl_manager):
    return {s: self._generate_examples(s) for s in COUNTS}

  def _generate_examples(self, split):
    for index in range(COUNTS[split]):
      whole = {
        "image": encoded(split, index),
        "mask": encoded(split, 0),
        "label": index % 3,
        "coarse": index % 2,
        "file_name": name(split, index),
        "objects": [{"label": 1, "box": [1.0, 2.0]}] * (index % 4),
      }
      yield index, {key: whole[key] for key in self.FEATURES}


class TinyLabels(_Builder):
  FEATURES = {
    "image": tfds.features.Image(shape=(20, 16, 3)),
    "label": tfds.features.ClassLabel(names=CLASSES),
    "file_name": tfds.features.Text(),
    "objects": tfds.features.Sequence(
      {
        "label": tfds.features.ClassLabel(num_classes=9),
        "box": tfds.features.Tensor(shape=(2,), dtype=np.float32),
      }
    ),
  }


class TinyBoxes(_Builder):
  """No label of the whole image, no file names, and configs."""

  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=year, description=year)
    for year in ("2007", "2012")
  ]
  FEATURES = {k: TinyLabels.FEATURES[k] for k in ("image", "objects")}


class TinyPairs(_Builder):
  """Two images and two labels, of which nothing is declared."""

  FEATURES = {
    "image": tfds.features.Image(),
    "mask": tfds.features.Image(),
    "label": tfds.features.ClassLabel(names=CLASSES),
    "coarse": tfds.features.ClassLabel(num_classes=2),
  }


class TinyDeclared(TinyPairs):
  """The same, declared as most data sets do."""

  SUPERVISED = ("image", "label")


class TinyText(_Builder):
  FEATURES = {"file_name": tfds.features.Text()}


def prepare(cls, data_dir, *, config=None, num_shards=1):
  """Writes a data set as array_record files; returns where it is."""
  builder = cls(data_dir=data_dir, config=config, file_format="array_record")
  settings = tfds.download.DownloadConfig(num_shards=num_shards)
  builder.download_and_prepare(download_config=settings)
  return builder.data_dir
