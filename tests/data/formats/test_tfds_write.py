import os
from pathlib import Path

import numpy as np
import pytest
import tiny_tfds

from kd_jax import main
from kd_jax.data.formats import tfds_write
from kd_jax.data.preprocess import pixels
from kd_jax.data.sources import digits, folder, tfds


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path):
  """Seven real images in three classes, one with an odd name."""
  for index in range(7):
    path = tmp_path / "images" / tiny_tfds.name("train", index)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_tfds.encoded("train", index))
  odd = os.fsencode(path.parent) + b"/\xff.jpg"
  path.rename(os.fsdecode(odd))
  return folder.Source(str(tmp_path / "images"))


def test_a_folder_comes_back(images, tmp_path):
  others = folder.Source(images.dir, split="all[:2]")
  splits = {"train": images, "valid": others}
  place = tfds_write.write(splits, "mine", str(tmp_path), records_per_shard=3)
  assert place == tmp_path / "mine/1.0.0"
  shards = sorted(path.name for path in place.glob("*-train*"))
  assert [name[-14:] for name in shards] == [
    f"0000{i}-of-00003" for i in range(3)
  ]
  for split, source in splits.items():
    again = tfds.Source("mine", split, data_dir=str(tmp_path))
    assert again.class_names == ("petal", "sky", "temple")
    assert list(again.ids()) == list(source.ids())
    assert len(again) == len(source)
    for i in range(len(source)):
      assert again[i] == source[i]
  # File names name nothing where two records share one.
  both = list(tfds.Source("mine", "train+valid", str(tmp_path)).ids())
  assert both[6:8] == ["mine/1.0.0/train/6", "mine/1.0.0/valid/0"]


def test_pixels_without_labels(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  source = digits.Source("test[:20]", labels=False)
  tfds_write.write({"train": source}, "digits")
  again = tfds.Source("digits", "train")
  assert (again.num_classes, again[3]["label"]) == (0, -1)
  for i in range(20):
    np.testing.assert_array_equal(pixels(again[i]), source[i]["image"])
  assert list(again.ids())[-1] == "19"


def test_refusals_leave_nothing_behind(images, tmp_path):
  place = str(tmp_path / "out")
  hidden = folder.Source(images.dir, labels=False)
  for sources, name, match in (
    ({"train": images}, "My-images", "'My-images'; it must be small letters"),
    ({}, "mine", "no split to write"),
    ({"a": images, "b": hidden}, "mine", r"different classes .*'a': 3, 'b': 0"),
  ):
    with pytest.raises(ValueError, match=match):
      tfds_write.write(sources, name, place)
  with pytest.raises(ValueError, match="records_per_shard=0; at least 1"):
    tfds_write.write({"a": images}, "mine", place, records_per_shard=0)
  gone = images.describe(4)
  data = tiny_tfds.encoded("train", 4)
  os.remove(gone)
  with pytest.raises(ValueError, match=f"{gone}: gone"):
    tfds_write.write({"train": images}, "mine", place)
  assert os.listdir(f"{place}/mine") == []
  with open(gone, "wb") as file:
    file.write(data)
  again = folder.Source(images.dir, labels=False)
  tfds_write.write({"train": again}, "mine", place)
  with pytest.raises(ValueError, match="mine/1.0.0' exists; remove it"):
    tfds_write.write({"train": images}, "mine", place)
  with pytest.raises(ValueError, match="cannot write '/dev/null/mine/1.0.0'"):
    tfds_write.write({"train": images}, "mine", "/dev/null")


def test_command(tmp_path, capsys):
  spec = Path(__file__).parents[3] / "configs/prepare.py"
  arguments = ["--config", f"{spec}:smoke"]
  arguments.append(f"--config.data_dir={tmp_path}")
  assert main.main(arguments) == 0
  said = capsys.readouterr().out
  assert f"{tmp_path}/my_images/1.0.0 (train: 6 images); read it" in said
  assert f"--config.data.data_dir={tmp_path}" in said
  assert len(tfds.Source("my_images", "train[:5]", str(tmp_path))) == 5
