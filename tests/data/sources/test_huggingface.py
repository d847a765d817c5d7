"""Parquet and Arrow files against what `datasets` itself writes and reads."""

import io
import os
import pickle

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd_jax.data import preprocess
from kd_jax.data.shards import arrow
from kd_jax.data.sources import huggingface

RNG = np.random.default_rng(0)
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module", autouse=True)
def quiet():
  datasets.disable_progress_bars()


def encoded(number):
  """An image of its own size and kind; one that its tag turns."""
  mode = ("RGB", "L", "P", "RGBA")[number % 4]
  pixels = RNG.integers(0, 255, (5 + number, 4, 3), np.uint8)
  file, tags = io.BytesIO(), Image.Exif()
  if number == 8:
    tags[0x0112] = 6
  Image.fromarray(pixels).convert(mode).save(file, "PNG", exif=tags)
  return file.getvalue()


def table(first, count, **more):
  rows = range(first, first + count)
  columns = {
    "id": list(rows),
    "image": [{"bytes": encoded(i), "path": f"{i}.png"} for i in rows],
    "label": [i % 3 for i in rows],
  }
  features = {"id": datasets.Value("int32"), "image": datasets.Image()}
  features["label"] = datasets.ClassLabel(names=CLASSES)
  for name, (feature, values) in more.items():
    columns[name], features[name] = values, feature
  return datasets.Dataset.from_dict(columns, datasets.Features(features))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The same 20 and 5 records in every way that `datasets` has."""
  folder = tmp_path_factory.mktemp("hub")
  train, test = table(0, 20), table(20, 5)
  (folder / "data").mkdir()
  for number in range(2):
    half = train.shard(2, number, contiguous=True)
    path = folder / f"data/train-0000{number}-of-00002.parquet"
    half.to_parquet(path, batch_size=4)
  test.to_parquet(folder / "data/test-00000-of-00001.parquet")
  both = datasets.DatasetDict(train=train, test=test)
  both.save_to_disk(folder / "saved", num_shards={"train": 3, "test": 1})
  for name, part in both.items():
    (folder / "default" / name).mkdir(parents=True)
    part.to_parquet(folder / "default" / name / "0000.parquet")
  return folder


def raw(dataset):
  return dataset.cast_column("image", datasets.Image(decode=False))


def check(source, dataset):
  """Whether a source has what `datasets` yields."""
  assert len(source) == len(dataset)
  for record, other in zip(source, raw(dataset), strict=True):
    assert record["image"] == other["image"]["bytes"]
    assert record["label"] == other["label"]
  assert source.all_labels() == list(dataset["label"])
  assert source.class_names == tuple(dataset.features["label"].names)


@pytest.mark.parametrize("mixed", [0, 2])
@pytest.mark.parametrize("split", ["train", "test", "train[7:12]"])
def test_parquet_as_on_the_hub(saved, tmp_path, split, mixed):
  files = {name: f"{saved}/data/{name}-*" for name in ("train", "test")}
  wanted = datasets.load_dataset(
    "parquet", data_files=files, split=split, cache_dir=tmp_path
  )
  for path in (f"{saved}/data", f"{saved}/default"):
    source = huggingface.Source(path, split=split, shuffle_blocks=mixed)
    check(source, wanted)
  pattern = f"{saved}/data/train-0000{{0..1}}-of-00002.parquet"
  if split == "train":
    check(huggingface.Source(pattern), wanted)


@pytest.mark.parametrize("split", ["train", "test", "train[50%:]"])
def test_what_save_to_disk_wrote(saved, split):
  wanted = datasets.load_from_disk(saved / "saved")[split.partition("[")[0]]
  wanted = wanted.select(range(10, 20)) if "[" in split else wanted
  check(huggingface.Source(f"{saved}/saved", split=split), wanted)
  if "[" not in split:
    one = huggingface.Source(f"{saved}/saved/{split}/")
    check(one, wanted)


def test_pixels_are_those_of_datasets(saved):
  source = huggingface.Source(f"{saved}/saved", split="train")
  wanted = datasets.load_from_disk(saved / "saved")["train"]
  assert source.exif_rotation and wanted[8]["image"].size == (13, 4)
  for record, other in zip(source, wanted, strict=True):
    pixels = preprocess.pixels(record)
    if record["id"] == 8:
      pixels = np.rot90(pixels, -1)
    np.testing.assert_array_equal(pixels, other["image"].convert("RGB"))


def test_an_order_of_its_own_is_kept(tmp_path):
  mixed = table(0, 9).shuffle(seed=1).filter(lambda row: row["id"] != 4)
  mixed.save_to_disk(tmp_path / "a", num_shards=2)
  source = huggingface.Source(str(tmp_path / "a"))
  check(source, datasets.load_from_disk(tmp_path / "a"))
  assert source.all_labels() != sorted(source.all_labels())


def test_fingerprint_names_and_pickle(saved):
  source = huggingface.Source(f"{saved}/data", split="train")
  again = pickle.loads(pickle.dumps(source))
  assert again == source and again.fingerprint == source.fingerprint
  assert again[13] == source[13]
  place = f"{saved}/data/train-00001-of-00002.parquet/3"
  assert source.describe(13) == place
  assert list(source.ids())[13] == "train-00001-of-00002.parquet/3"
  assert source.blocks().tolist() == [4, 4, 2, 4, 4, 2]
  others = [{"split": "test"}, {"split": "train[1:]"}, {"split": "train[:19]"}]
  fields = [{"split": "train"}, *others, {"split": "train", "per_class": 2}]
  found = [huggingface.Source(f"{saved}/data", **f).fingerprint for f in fields]
  assert len(set(found)) == 5 and found[0] == source.fingerprint


def test_splits_to_choose_from(saved):
  for path in ("data", "saved"):
    with pytest.raises(
      ValueError, match=r"holds the splits .*'train.*\[:10%\]'"
    ):
      huggingface.Source(f"{saved}/{path}")
    with pytest.raises(ValueError, match="split='val'"):
      huggingface.Source(f"{saved}/{path}", split="val")
  one = f"{saved}/data/test-00000-of-00001.parquet"
  assert len(huggingface.Source(one, split="test[:2]")) == 2
  assert len(huggingface.Source(one)) == 5
  with pytest.raises(ValueError, match=r"names 'train'|holds the splits"):
    huggingface.Source(one, split="train")


def written(tmp_path, columns, metadata=None, **how):
  """A parquet file of plain pyarrow."""
  path = tmp_path / "plain.parquet"
  found = pa.table(columns).replace_schema_metadata(metadata)
  pq.write_table(found, path, **how)
  return str(path)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_files_of_others(tmp_path, kind, codec):
  images = [encoded(i) for i in range(7)] * 3
  columns = {"jpg": pa.array(images, kind), "label": pa.array(range(21))}
  path = written(tmp_path, columns, compression=codec, row_group_size=5)
  source = huggingface.Source(path)
  assert [record["image"] for record in source] == images
  assert source.all_labels() == list(range(21)) and source.num_classes == 21
  assert source.blocks().tolist() == [5, 5, 5, 5, 1]
  assert huggingface.Source(path, labels=False)[3]["label"] == -1


def test_columns_to_choose_from(tmp_path):
  masks = (datasets.Image(), [{"bytes": b"m", "path": None}] * 4)
  fine = (datasets.ClassLabel(num_classes=4), [3, 2, None, 0])
  path = str(tmp_path / "a.parquet")
  table(0, 4, mask=masks, fine=fine).to_parquet(path)
  match = r"has \['image', 'mask'\] to choose from; set --config.data.image_col"
  with pytest.raises(ValueError, match=match):
    huggingface.Source(path)
  with pytest.raises(
    ValueError, match=r"\['label', 'fine'\] to .*label_column"
  ):
    huggingface.Source(path, image_column="image")
  source = huggingface.Source(path, image_column="mask", label_column="fine")
  assert [r["image"] for r in source] == [b"m"] * 4
  assert source.all_labels() == [3, 2, -1, 0] == [r["label"] for r in source]
  assert source.class_names == ("0", "1", "2", "3")
  named = {"image_column": "image", "label_column": "no"}
  with pytest.raises(ValueError, match="no column 'no'; set .*label_column"):
    huggingface.Source(path, **named)
  with pytest.raises(ValueError, match="column 'id' is int32, not an encoded"):
    huggingface.Source(path, image_column="id")


def test_columns_that_do_not_fit(tmp_path):
  plain = {"image": pa.array([b"1"])}
  path = written(tmp_path, {**plain, "label": pa.array(["cat"])})
  assert huggingface.Source(path).num_classes == 0
  with pytest.raises(
    ValueError, match="'label' is string, and labels are whole"
  ):
    huggingface.Source(path, label_column="label")
  path = written(tmp_path, {"x": pa.array([[b"1"]]), "y": pa.array([1])})
  with pytest.raises(
    ValueError, match=r"declares none; set .*image_column .*'x'"
  ):
    huggingface.Source(path)
  with pytest.raises(
    ValueError, match="column 'x' is list<.*>, not an encoded"
  ):
    huggingface.Source(path, image_column="x")


def test_images_beside_the_file(tmp_path):
  (tmp_path / "images").mkdir()
  (tmp_path / "images/a.png").write_bytes(encoded(0))
  names = ["images/a.png", str(tmp_path / "images/a.png"), "b.png", None]
  images = [{"bytes": None, "path": name} for name in names]
  path = written(tmp_path, {"image": pa.array(images)})
  source = huggingface.Source(path, image_column="image")
  for index in (0, 1):
    assert source[index]["image"] == (tmp_path / "images/a.png").read_bytes()
  with pytest.raises(
    ValueError, match="plain.parquet/2: its image is not in it"
  ):
    source[2]
  with pytest.raises(ValueError, match="plain.parquet/3: has no image; leave"):
    source[3]


def test_damaged_files(saved, tmp_path):
  for name in (
    "data/test-00000-of-00001.parquet",
    "saved/test/data-00000-of-00001.arrow",
  ):
    data = (saved / name).read_bytes()
    path = tmp_path / os.path.basename(name)
    cut = range(0, len(data) - 8, len(data) // 9)
    for broken in (*(data[:end] for end in cut), b"\xff\xd8" * 99):
      path.write_bytes(broken)
      with pytest.raises(
        ValueError, match="damaged, cut short or of an"
      ) as found:
        huggingface.Source(str(path))
      assert "\n" not in str(found.value) and str(path) in str(found.value)


def test_a_damaged_row_group(saved, tmp_path):
  data = bytearray((saved / "data/test-00000-of-00001.parquet").read_bytes())
  path = tmp_path / "a.parquet"
  path.write_bytes(data)
  start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
  data[start : start + 30] = bytes(30)  # a page's header; the footer is whole
  path.write_bytes(data)
  source = huggingface.Source(str(path), labels=False)
  with pytest.raises(ValueError, match="a.parquet: damaged, cut short or of"):
    source[0]


def test_files_that_do_not_belong_together(saved, tmp_path):
  table(0, 3).to_parquet(tmp_path / "a-00000-of-00002.parquet")
  other = table(0, 3).cast_column("label", datasets.ClassLabel(num_classes=4))
  other.to_parquet(tmp_path / "a-00001-of-00002.parquet")
  match = "a-00001.* other columns or classes .* and 4 classes, there .* and 3"
  with pytest.raises(ValueError, match=match):
    huggingface.Source(str(tmp_path))
  both = f"{saved}/data::{saved}/saved/test/data-00000-of-00001.arrow"
  with pytest.raises(
    ValueError, match=r"files of the kinds \['.arrow', '.parq"
  ):
    huggingface.Source(both)
  with pytest.raises(ValueError, match="there is no file .*parquet; set"):
    huggingface.Source(f"{saved}/data/*.zip")
  os.mkdir(tmp_path / "none")
  with pytest.raises(ValueError, match=r"there is no file \*.parquet; set"):
    huggingface.Source(str(tmp_path / "none"))


def test_saved_folders_that_are_not_whole(tmp_path):
  both = datasets.DatasetDict(train=table(0, 3), test=table(3, 2))
  both.save_to_disk(tmp_path / "a")
  (tmp_path / "a/test/state.json").unlink()
  with pytest.raises(ValueError, match="split 'test' has no state.json"):
    huggingface.Source(str(tmp_path / "a"), split="train")
  (tmp_path / "a/train/data-00000-of-00001.arrow").unlink()
  with pytest.raises(ValueError, match="1 of 1 files are not there"):
    huggingface.Source(str(tmp_path / "a/train"))
  (tmp_path / "a/train/state.json").write_text('{"epoch": 3}')  # of others
  with pytest.raises(ValueError, match=r"there is no file \*.parquet; set"):
    huggingface.Source(str(tmp_path / "a/train"))
  (tmp_path / "a/train/state.json").write_text("{")
  with pytest.raises(ValueError, match="state.json: damaged, no JSON; save it"):
    huggingface.Source(str(tmp_path / "a/train"))


def test_arrow_is_mapped_and_row_groups_are_shared(saved, monkeypatch):
  source = huggingface.Source(f"{saved}/saved", split="train")
  _, block, place = source._find(3)
  images = source._load(block).images.chunk(0)
  (mapped,) = (arrow._mapped(f) for f in source._files[:1])
  data = images.buffers()[2]
  assert mapped.address <= data.address < mapped.address + mapped.size
  loads, load = [], arrow.load
  monkeypatch.setattr(arrow, "load", lambda *a: loads.append(a) or load(*a))
  source = huggingface.Source(f"{saved}/data", split="train", shuffle_blocks=1)
  assert len([source[i] for i in range(20)]) == 20 and len(loads) == 6
