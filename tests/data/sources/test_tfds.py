import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_tfds
from PIL import Image

from kd_jax.data import pipeline
from kd_jax.data.formats import array_cache, tfds_features, tfds_prepared
from kd_jax.data.formats import tfds_records as records
from kd_jax.data.formats.decode import decode
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import tfds

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/tfds"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  place = tmp_path_factory.mktemp("tfds")
  tiny_tfds.prepare(tiny_tfds.TinyLabels, place, num_shards=3)
  for config in ("2007", "2012"):
    tiny_tfds.prepare(tiny_tfds.TinyBoxes, place, config=config)
  for cls in (tiny_tfds.TinyPairs, tiny_tfds.TinyDeclared, tiny_tfds.TinyText):
    tiny_tfds.prepare(cls, place)
  return str(place)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
  place = tmp_path / "cache"
  monkeypatch.setenv("KD_JAX_CACHE", str(place))
  return place


@pytest.fixture
def make(data_dir):
  def build(dataset="tiny_labels", split="train", **fields):
    return tfds.Source(dataset, split, data_dir=data_dir, **fields)

  return build


@pytest.fixture
def copy(data_dir, tmp_path):
  """A copy of `tiny_labels` to damage: its data_dir and its directory."""
  place = tmp_path / "copy"
  shutil.copytree(Path(data_dir) / "tiny_labels", place / "tiny_labels")
  return str(place), place / "tiny_labels/1.0.0"


def test_every_image_and_label(make):
  for split, count in tiny_tfds.COUNTS.items():
    source = make(split=split)
    assert (len(source), source.num_classes) == (count, 3)
    assert source.class_names == tiny_tfds.CLASSES
    names = list(source.ids())
    order = [int(name[-6:-4]) for name in names]
    assert sorted(order) == list(range(count))
    for i, (index, record) in enumerate(zip(order, source, strict=True)):
      assert names[i] == tiny_tfds.name(split, index)
      assert record["image"] == tiny_tfds.encoded(split, index)
      assert (record["label"], record["id"]) == (index % 3, i)
      if index % 2:  # PNG keeps every pixel
        pixels = decode(record["image"], names[i])
        np.testing.assert_array_equal(pixels, tiny_tfds.tile(split, index))
  assert source[-1] == source[5]


def test_names_versions_and_the_default_directory(
  make, copy, data_dir, monkeypatch
):
  place, folder = copy
  info = json.loads((folder / "dataset_info.json").read_text())
  for version in ("1.10.0", "1.9.0"):
    shutil.copytree(folder, folder.parent / version)
    text = json.dumps({**info, "version": version})
    (folder.parent / version / "dataset_info.json").write_text(text)
  monkeypatch.setenv("TFDS_DATA_DIR", place)
  named = {
    name: tfds.Source(name, "test").describe(0)
    for name in ("tiny_labels", "tiny_labels:1.9.0", "tiny_labels/1.0.0")
  }
  assert named == {
    "tiny_labels": "tiny_labels/1.10.0/test/0",
    "tiny_labels:1.9.0": "tiny_labels/1.9.0/test/0",
    "tiny_labels/1.0.0": "tiny_labels/1.0.0/test/0",
  }
  boxes = make("tiny_boxes/2012:1.0.0")
  assert boxes.describe(0) == "tiny_boxes/2012/1.0.0/train/0"
  with pytest.raises(ValueError, match=r"2\.0\.0; .*'1\.9\.0', '1\.10\.0'\]"):
    tfds.Source("tiny_labels:2.0.0", "test")
  monkeypatch.delenv("TFDS_DATA_DIR")
  monkeypatch.setenv("HOME", str(data_dir))
  with pytest.raises(ValueError, match=f"{data_dir}/tensorflow_datasets"):
    tfds.Source("cifar100", "train")


def test_parts_of_splits(make):
  whole = [record["image"] for record in make()]
  part = make(split="train[25%:50%]")
  assert [record["image"] for record in part] == whole[6:12]
  assert [record["id"] for record in part] == list(range(6))
  both = make(split="test[:2]+train[20:]")
  tests = [record["image"] for record in make(split="test")]
  assert [record["image"] for record in both] == tests[:2] + whole[20:]
  assert list(both.ids())[1:3] == ["temple/test04.jpg", "sky/train09.jpg"]
  assert both.describe(2) == "tiny_labels/1.0.0/train/20"
  assert len(set(both.ids())) == 6
  # 6 of 24 and 3 of 30, the same at every time
  drawn = make(percent=25, seed=1)
  assert drawn.drawn
  assert not part.drawn
  assert [int(x[-6:-4]) for x in drawn.ids()] == [12, 17, 0, 3, 1, 9]
  assert len(make(split="train+test", percent=10)) == 3


def test_some_of_every_class_without_showing_labels(make, cache_dir):
  source = make(per_class=2, labels=False)
  assert (source.num_classes, source.class_names) == (0, ())
  assert {record["label"] for record in source} == {-1}
  names = list(source.ids())
  assert names == [
    "temple/train19.jpg",
    "sky/train18.jpg",
    "petal/train17.jpg",
    "sky/train03.jpg",
    "temple/train01.jpg",
    "petal/train20.jpg",
  ]
  labelled = make(per_class=2)
  assert list(labelled.ids()) == names
  assert [r["label"] for r in labelled] == [1, 0, 2, 0, 1, 2]
  assert list(make(per_class=2, seed=3).ids()) != names
  assert len(list(cache_dir.rglob("*.npy"))) == 1  # the split was read once


def test_labels_are_read_again_when_files_change(make, copy):
  place, folder = copy
  cached = tfds.Source("tiny_labels", "train", data_dir=place, per_class=1)
  before = list(cached.ids())
  # Shards change places: names and sizes stay, contents do not.
  first, second = (next(folder.glob(f"*train*{i}-of-00003")) for i in "01")
  a, b = first.read_bytes(), second.read_bytes()
  assert len(a) == len(b)
  first.write_bytes(b)
  second.write_bytes(a)
  again = tfds.Source("tiny_labels", "train", data_dir=place, per_class=1)
  assert list(again.ids()) != before
  assert [r["label"] for r in again] == [
    tiny_tfds.CLASSES.index(name.partition("/")[0]) for name in again.ids()
  ]


def test_fingerprint_follows_content_only(make, copy):
  first = make().fingerprint
  place, folder = copy
  same = [
    make(split="train[:100%]"),
    make(labels=False),
    make(seed=5, image_key="image", label_key="label", skip_corrupt=True),
    tfds.Source("tiny_labels:1.0.0", "train", data_dir=place),
  ]
  assert {source.fingerprint for source in same} == {first}
  others = [
    make(split="train[1:]"),
    make(split="test"),
    make(percent=50),
    make(percent=50, seed=1),
    make(per_class=4),
    make("tiny_declared"),
    make("tiny_declared", image_key="mask"),
  ]
  with next(folder.glob("*train*1-of-*")).open("ab") as file:
    file.write(b"\0")
  others.append(tfds.Source("tiny_labels", "train", data_dir=place))
  assert len({first, *(source.fingerprint for source in others)}) == 9
  assert len(first) == 16


def test_choice_of_features(make):
  boxes = make("tiny_boxes/2007")  # its labels belong to boxes
  assert (boxes.num_classes, boxes[0]["label"]) == (0, -1)
  assert list(boxes.ids())[23] == "tiny_boxes/2007/1.0.0/train/23"
  declared = make("tiny_declared")
  assert declared.class_names == tiny_tfds.CLASSES
  coarse = make("tiny_declared", label_key="coarse", image_key="mask")
  assert coarse.class_names == ("0", "1")
  assert {r["image"] for r in coarse} == {tiny_tfds.encoded("train", 0)}
  found = {(a["label"], b["label"]) for a, b in zip(declared, coarse)}  # noqa: B905
  assert len(found) == 6
  hidden = make("tiny_pairs", image_key="image", labels=False)
  assert len(list(hidden.ids())) == 24


def test_pickles_small_and_opens_again(make):
  source = make(per_class=4)
  source[0]
  data = pickle.dumps(source)
  assert len(data) < 500
  again = pickle.loads(data)
  assert again == source
  assert hash(again) == hash(source)
  assert again[3] == source[3]


def test_tfrecord_written_by_tensorflow(cache_dir):
  source = tfds.Source("tiny_labels", "train", data_dir=str(GOLDEN))
  # As TensorFlow itself read them.
  expected = [(6, 643), (5, 540), (4, 642), (0, 643), (3, 358), (1, 322)]
  expected += [(2, 649)]
  found = [(int(name[-6:-4]), len(r["image"])) for name, r in zip(
    source.ids(), source, strict=True
  )]  # fmt: skip
  assert found == expected
  assert [r["label"] for r in source] == [i % 3 for i, _ in expected]
  for (index, _), record in zip(expected, source, strict=True):
    image = Image.open(io.BytesIO(record["image"])).convert("RGB")
    kind = int if index % 2 else float
    error = np.asarray(image, kind) - tiny_tfds.tile("train", index)
    assert np.abs(error).mean() < (1e-9 if index % 2 else 8)
  assert pickle.loads(pickle.dumps(source))[1] == source[1]
  (table,) = (cache_dir / "tfrecord").glob("*.npy")
  table.write_bytes(b"damaged")
  assert tfds.Source("tiny_labels", "train", data_dir=str(GOLDEN))[1]
  again = tfds.Source("tiny_labels", "train+test", data_dir=str(GOLDEN))
  assert again[8]["label"] == 0


SCRIPT = """
import hashlib, sys
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.sources import tfds

if __name__ == "__main__":
  source = tfds.Source("tiny_labels", "train", data_dir=sys.argv[1])
  views = Preprocess(image_size=8)
  with pipeline.train_batches(
    source, views, batch_size=6, seed=3, reading=Reading(2)
  ) as batches:
    batch = [next(batches) for _ in range(3)][-1]
  print(hashlib.sha256(batch.image.tobytes()).hexdigest(), *batch.label)
"""


def test_two_workers_without_tensorflow(make, data_dir, tmp_path):
  (tmp_path / "tensorflow").mkdir()
  spoiled = "raise RuntimeError('TensorFlow was imported')"
  (tmp_path / "tensorflow/__init__.py").write_text(spoiled)
  script = tmp_path / "script.py"
  script.write_text(SCRIPT)
  env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
  run = subprocess.run(
    [sys.executable, str(script), data_dir],
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr[-2000:]
  with pipeline.train_batches(
    make(), Preprocess(image_size=8), batch_size=6, seed=3
  ) as batches:
    batch = [next(batches) for _ in range(3)][-1]
  digest = hashlib.sha256(batch.image.tobytes()).hexdigest()
  assert run.stdout.split() == [digest, *map(str, batch.label)]
  assert len(set(batch.label)) > 1


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"dataset": "tiny labels"}, "is not 'name', 'name/config'"),
    ({"dataset": "cifra100"}, r"knows no 'cifra100'.*\['cifar100', 'cifar10'"),
    (
      {"dataset": "imagenet2012"},
      r"not prepared in '.*tfds.* \(prepared there: \['tiny_boxes', .*"
      r"python -c .*tfds\.builder\('imagenet2012', data_dir='.*', "
      r"file_format='array_record'\)\.download_and_prepare\(\)\".*/manual",
    ),
    (
      {"dataset": "tiny_boxes"},
      r"\['tiny_boxes/2012', 'tiny_boxes/2007'\]; choose",
    ),
    ({"dataset": "tiny_boxes/2008"}, r"holds: \['tiny_boxes/200.*choose"),
    ({"dataset": "tiny_labels/x"}, r"holds: \['tiny_labels'\]; choose"),
    ({"split": "valid"}, r"'valid'; the source has \['test', 'train'\]"),
    ({"split": "train[30:]"}, "bound 30 is outside; .* 24 records"),
    ({"split": "train+train[:5]"}, "names a split twice"),
    ({"dataset": "tiny_pairs"}, r"several: \['image', 'mask'\]; set image_key"),
    (
      {"dataset": "tiny_pairs", "image_key": "image"},
      r"several: \['coarse', 'label'\]; set label_key",
    ),
    (
      {"image_key": "img"},
      r"'img'; of the features \['file_name', .*\['image'\] can be image_key",
    ),
    ({"label_key": "objects"}, r"'objects'; .* \['label'\] can be label_key"),
    ({"dataset": "tiny_text"}, r"no image, only \['file_name'\]"),
    ({"per_class": 9}, "'tiny_labels': per_class=9 .* 'sky' with 8 records"),
    ({"dataset": "tiny_boxes/2007", "per_class": 1}, "needs classes"),
    ({"percent": 101.0}, "percent=101.0; it must be above 0"),
    ({"per_class": -1}, "per_class=-1; it must be at least 0"),
  ],
)
def test_mistakes(make, fields, match):
  with pytest.raises(ValueError, match=match):
    make(**fields)


def test_damaged_files(copy):
  place, folder = copy
  source = tfds.Source("tiny_labels", "train", data_dir=place)
  shard = next(folder.glob("*train*1-of-*"))
  whole = shard.read_bytes()
  for kept in (b"", whole[: 1 << 16]):
    shard.write_bytes(kept)
    opened = tfds.Source("tiny_labels", "train", data_dir=place)
    with pytest.raises(ValueError, match=f"{shard}' cannot be read: .*again"):
      opened[12]
  assert source[0]["label"] == 0
  shard.unlink()
  with pytest.raises(ValueError, match=f"1 of 3 files are missing.*'{shard}'"):
    tfds.Source("tiny_labels", "train", data_dir=place)
  assert len(tfds.Source("tiny_labels", "test", data_dir=place)) == 6
  info = json.loads((folder / "dataset_info.json").read_text())
  text = json.dumps({**info, "fileFormat": "riegeli"})
  (folder / "dataset_info.json").write_text(text)
  match = r"stored as \['riegeli'\]; \['array_record', 'tfrecord'\] can be"
  with pytest.raises(ValueError, match=match):
    tfds.Source("tiny_labels", "train", data_dir=place)


def test_damaged_tfrecord(tmp_path):
  shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
  shard = next(tmp_path.rglob("*train*1-of-00002"))
  whole = shard.read_bytes()
  for kept in (whole[:-1], whole + b"\0", whole[:7], b"\xff" * 900):
    shard.write_bytes(kept)
    source = tfds.Source("tiny_labels", "train", data_dir=str(tmp_path))
    match = f"{shard}' is damaged: 3 records do not fill its {len(kept)} bytes"
    with pytest.raises(ValueError, match=match):
      source[0]


def test_images_of_floats_are_refused(data_dir):
  from tensorflow_datasets import features

  found = tfds_prepared.load("tiny_labels", data_dir)
  floats = features.Image(
    shape=(None, None, 1), dtype=np.float32, encoding_format="png"
  )
  found.features["image"] = floats
  with pytest.raises(ValueError, match="'image' holds float32 values; 8 and"):
    tfds_features.image_key(found)


def test_unwritable_cache(make, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path / "file"))
  with pytest.raises(ValueError, match="cannot write to .* KD_JAX_CACHE to a"):
    make(per_class=1)


def test_cache_builds_once(cache_dir):
  built = []

  def build():
    built.append(1)
    return np.arange(5)

  tables = [array_cache.table("x", "\udce4", build) for _ in range(2)]
  assert [table.tolist() for table in tables] == [[0, 1, 2, 3, 4]] * 2
  assert isinstance(tables[0], np.memmap)
  assert array_cache.table("x", "other", build) is not None
  assert (len(built), len(list(cache_dir.rglob("*")))) == (2, 3)


def test_more_files_than_may_be_open(monkeypatch):
  limits = [(1024, 4096)]
  monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
  monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
  records._allow_files(1024)
  records._allow_files(10)
  assert limits == [(1024, 4096), (1280, 4096)]
  with pytest.raises(ValueError, match="4000 files, .* 4096; .*ulimit -n 4256"):
    records._allow_files(4000)
