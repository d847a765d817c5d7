"""Labels without images: the same as those of the records."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from kd_jax import interfaces
from kd_jax.data.sources import digits, folder, scenes, synthetic, tfds

ROOT = pathlib.Path(__file__).parents[3]


def labels(source):
  return [source[index]["label"] for index in range(len(source))]


@pytest.mark.parametrize(
  "source",
  [
    digits.Source("test[:50]"),
    digits.Source("train[20:60]", classes=(7, 2, 9)),
    digits.Source("all[:9]", labels=False),
    synthetic.Source(8, length=13, num_classes=4),
    synthetic.Source(8, length=3, num_classes=0),
    scenes.Source("test[4:19]", size=24, length=20, classes=(5, 8, 2)),
    scenes.Source(size=24, length=90, classes=(6, 1), per_class=3),
    scenes.Source(size=24, length=5, labels=False),
    scenes.Source(size=24, length=5, digits=(1, 2)),
  ],
)
def test_sources_without_files(source):
  found = source.all_labels()
  assert list(found) == labels(source) and len(found) == len(source)
  assert interfaces.DataSource.all_labels(source) == found


def test_folders_are_not_read(tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))
  for index, name in enumerate("abcabbc"):
    path = tmp_path / f"images/{name}/{index}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2)).save(path)
  place = str(tmp_path / "images")
  sources = [
    folder.Source(place),
    folder.Source(place, split="all[2:5]"),
    folder.Source(place, per_class=1),
    folder.Source(place, labels=False),
    folder.Source(f"{place}/a"),
  ]
  wanted = [labels(source) for source in sources]
  assert wanted[0] == [0, 0, 1, 1, 1, 2, 2] and wanted[2] == [0, 1, 2]

  def unread(self, index):
    raise AssertionError("a record was read")

  monkeypatch.setattr(folder.Source, "__getitem__", unread)
  assert [source.all_labels() for source in sources] == wanted


def test_tfds(monkeypatch, tmp_path):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))
  fields = {"data_dir": str(ROOT / "tests/golden/tfds")}
  for split in ("train", "test+train[2:]"):
    source = tfds.Source("tiny_labels", split, **fields)
    assert source.all_labels() == labels(source)
    assert np.ptp(source.all_labels()) > 0
  hidden = tfds.Source("tiny_labels", "train", labels=False, **fields)
  assert hidden.all_labels() == [-1] * len(hidden)
