"""Tars against what webdataset itself writes and reads."""

import gc
import io
import json
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from kd_jax.data import preprocess
from kd_jax.data.shards import tar
from kd_jax.data.sources import webdataset

RNG = np.random.default_rng(0)


def png(height=5, width=4):
  file = io.BytesIO()
  pixels = RNG.integers(0, 255, (height, width, 3), np.uint8)
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def theirs(pattern, *decoders):
  """All samples as webdataset reads them."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # it leaves files open
    dataset = wds.WebDataset(pattern, shardshuffle=False)
    found = list(dataset.decode(*decoders) if decoders else dataset)
    del dataset
    gc.collect()
  return found


def write(path, members, kind=tarfile.GNU_FORMAT):
  """A tar of (name, bytes), or of ready TarInfos."""
  with tarfile.open(path, "w", format=kind) as archive:
    for name, data in members:
      info = name
      if isinstance(name, str):
        info = tarfile.TarInfo(name)
        info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
  """23 samples in four shards, by webdataset's own writer."""
  folder = tmp_path_factory.mktemp("shards")
  with wds.ShardWriter(f"{folder}/a-%06d.tar", maxcount=7, verbose=0) as writer:
    for number in range(23):
      key = f"part.{number % 2}/{'long' * (50 if number == 9 else 1)}é{number}"
      sample = {"__key__": key, "cls": number % 3, "png": png(5 + number)}
      writer.write({**sample, "json": {"age": number}, "txt": "words"})
  return folder


@pytest.fixture
def pattern(shards):
  return f"{shards}/a-{{000000..000003}}.tar"


@pytest.mark.parametrize("mixed", [0, 2])
def test_records_are_those_of_webdataset(pattern, mixed):
  source = webdataset.Source(pattern, shuffle_blocks=mixed)
  wanted = theirs(pattern)
  assert len(source) == len(wanted) == 23
  for index, sample in enumerate(wanted):
    record = source[index]
    assert record["image"] == sample["png"]
    assert record["label"] == int(sample["cls"]) and record["id"] == index
    url, key = sample["__url__"], sample["__key__"]
    assert source.describe(index) == f"{url}/{key}"
  assert source.class_names == ("0", "1", "2") and source.num_classes == 3
  assert source.all_labels() == [number % 3 for number in range(23)]
  assert list(source.ids())[8] == f"a-000001.tar/{wanted[8]['__key__']}"
  decoded = theirs(pattern, "rgb8")
  for record, sample in zip(source, decoded, strict=True):
    np.testing.assert_array_equal(preprocess.pixels(record), sample["png"])
  with pytest.raises(IndexError):
    source[23]


def test_numbers_in_json_and_splits(shards, tmp_path):
  fields = {"label_key": "json:age", "classes": 40}
  source = webdataset.Source(str(shards), split="all[5:9]", **fields)
  assert source.all_labels() == [5, 6, 7, 8] and source.num_classes == 40
  assert source[-1]["label"] == 8 and source[-1]["id"] == 3
  drawn = webdataset.Source(str(shards), per_class=2, classes=("a", "b", "c"))
  assert sorted(drawn.all_labels()) == [0, 0, 1, 1, 2, 2] and drawn.drawn
  assert drawn.class_names == ("a", "b", "c") and drawn.blocks().sum() == 6
  (tmp_path / "names.txt").write_text("x\ny\nz\n")
  named = webdataset.Source(str(shards), classes=str(tmp_path / "names.txt"))
  assert named.class_names == ("x", "y", "z")
  hidden = webdataset.Source(str(shards), labels=False)
  assert (hidden.num_classes, hidden[4]["label"]) == (0, -1)
  assert hidden.all_labels() == [-1] * 23


def test_blocks_of_a_draw(shards, monkeypatch):
  monkeypatch.setattr(webdataset, "_BLOCK", 4096)
  whole = webdataset.Source(str(shards))
  assert whole.blocks().sum() == 23 and len(whole.blocks()) > 4
  for fields in ({"split": "all[3:20]"}, {"percent": 40.0}):
    part = webdataset.Source(str(shards), shuffle_blocks=2, **fields)
    plain = webdataset.Source(str(shards), **fields)
    assert part.blocks().sum() == len(part) and (part.blocks() > 0).all()
    assert [dict(r) for r in part] == [dict(r) for r in plain]
    assert len(part._held) == 0  # every record was taken


def test_fingerprint_follows_names_and_sizes(shards, tmp_path):
  source = webdataset.Source(str(shards))
  again = pickle.loads(pickle.dumps(source))
  assert again == source and again.fingerprint == source.fingerprint
  assert again[9]["image"] == source[9]["image"]
  assert webdataset.Source(str(shards), labels=False) != source
  members = [("a.jpg", b"12"), ("b.jpg", b"123")]
  first = webdataset.Source(write(tmp_path / "1.tar", members)).fingerprint
  moved = webdataset.Source(write(tmp_path / "2.tar", members)).fingerprint
  assert first == moved
  for time, (name, data) in enumerate(
    [("a.jpg", b"1"), ("c.jpg", b"12"), ("a.jpg", b"12")]
  ):
    path = write(tmp_path / "1.tar", [(name, data), members[1]])
    os.utime(path, ns=(1, time))
    found = webdataset.Source(path).fingerprint
    assert (found == first) == (time == 2)


def test_names_group_as_in_webdataset():
  from webdataset.tariterators import base_plus_ext

  for name in (
    "a.jpg", "a.b.JPG", "d/a.jpg", "d.e/a.jpg", "./d.e/f.g/a.seg.png", "a",
    "d.e/a", ".jpg", "d/.jpg", "a.", "d/a.", "/a.b", "a/b.c/d.e/", "..a.b",
  ):  # fmt: skip
    key, part = base_plus_ext(name)
    wanted = None if key is None else (key, part.lower())
    assert tar.split_name(name) == wanted, name


ODD = [
  ("__meta__/x.jpg", b"0"),
  ("README", b"no sample"),
  ("0/a.JPG", b"1"),
  ("0/a.seg.png", b"2"),
  ("0/a.cls", b" 7\n"),
  ("0/b.cls", b"3"),
  ("0/b.jpg", b""),
  ("1/a.jpg", b"44"),
  ("1/a.cls", b"0"),
  ("0/a.jpg", b"555"),  # a new sample: its files do not follow the first
  ("0/a.cls", b"5"),
  ("d" * 120 + "/" + "n" * 140 + ".jpg", b"666666"),
  ("d" * 120 + "/" + "n" * 140 + ".cls", b"6"),
]


@pytest.mark.parametrize(
  "kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"]
)
def test_odd_tars(tmp_path, kind):
  folder = tarfile.TarInfo("0")
  folder.type = tarfile.DIRTYPE
  link = tarfile.TarInfo("0/c.jpg")
  link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
  members = [(folder, b""), *ODD[:5], (link, b""), *ODD[5:]]
  path = write(tmp_path / "odd.tar", members, kind)
  source = webdataset.Source(path)
  wanted = theirs(path)
  assert [source[i]["image"] for i in range(5)] == [s["jpg"] for s in wanted]
  assert source.all_labels() == [int(s["cls"]) for s in wanted]
  names = [f"odd.tar/{s['__key__']}" for s in wanted]
  assert list(source.ids()) == names and len(set(names)) == 4
  with pytest.raises(
    ValueError, match=r"'0/b' has no image, only \['cls', 'jpg'\]"
  ):
    webdataset.Source(path, image_key="seg.png")


def bad(tmp_path, members, match, **fields):
  path = write(tmp_path / "bad.tar", members)
  with pytest.raises(ValueError, match=match) as found:
    webdataset.Source(path, **fields)
  assert "\n" not in str(found.value) and "bad.tar" in str(found.value)


def test_samples_that_are_refused(tmp_path):
  one, two = ("a.jpg", b"1"), ("b.txt", b"2")
  bad(
    tmp_path, [one, two], r"'b' has no image, only \['txt'\]; set .*image_key"
  )
  both = [one, ("a.png", b"2")]
  bad(tmp_path, both, r"'a' has 2 images, \['jpg', 'png'\]; say which .* 'jpg'")
  path = str(tmp_path / "bad.tar")
  assert webdataset.Source(path, image_key="png")[0]["image"] == b"2"
  bad(tmp_path, [one, ("a.JPG", b"2")], "'a' has two files .jpg; give every")
  labels = [one, ("a.cls", b"0"), ("b.jpg", b"2")]
  bad(tmp_path, labels, "'b' has no .cls, where its label should be")
  assert len(webdataset.Source(path, labels=False, label_key="cls")) == 2
  for text in (b"cat", b"-1", b""):
    bad(tmp_path, [one, ("a.cls", text)], "its label, .cls, is .*whole number")
  for value in ({"x": 1}, [], {"y": 1.5}, {"y": None}):
    members = [one, ("a.json", json.dumps(value).encode())]
    bad(tmp_path, members, "its label, .json:y, is", label_key="json:y")
  large = [one, ("a.cls", b"7")]
  bad(tmp_path, large, "a label is 7, and there are 3 classes", classes=3)
  with pytest.raises(
    ValueError, match="label_key='json'; it must be 'cls', 'js"
  ):
    webdataset.Source(path, label_key="json")
  with pytest.raises(
    ValueError, match="shuffle_blocks=-1; it must be at least"
  ):
    webdataset.Source(path, shuffle_blocks=-1)
  bad(tmp_path, [("README", b"x")], "a tar without a sample")
  bad(tmp_path, [], "a tar without a sample")


def test_files_that_are_no_whole_tars(tmp_path):
  path = write(tmp_path / "a.tar", [(f"{i}.jpg", b"x" * 700) for i in range(9)])
  with open(path, "rb") as file:
    whole = file.read()
  broken = bytearray(whole)
  broken[3 * 1536 + 100] ^= 1  # in the fourth header
  for data, message in (
    (b"", "0 bytes, not a tar"),
    (whole[:5000], "damaged, cut short or not a tar"),
    (whole[: 5 * 1536], "no header and no end at byte 7680"),
    (whole[: 4 * 1536 + 900], "damaged, cut short or not a tar"),
    (bytes(broken), "no header and no end at byte 4608"),
    (b"\xff\xd8\xff" + b"1" * 2000, "damaged, cut short or not a tar"),
    (b"\x1f\x8b" + b"1" * 2000, r"compressed \(gzip\), so that"),
    (b"\x28\xb5\x2f\xfd" + b"1" * 2000, r"compressed \(zstd\)"),
  ):
    with open(path, "wb") as file:
      file.write(data)
    with pytest.raises(ValueError, match=message) as found:
      webdataset.Source(path)
    assert "\n" not in str(found.value) and path in str(found.value)


def test_a_shard_that_is_missing_or_changes(shards, tmp_path):
  with pytest.raises(
    ValueError, match=r"1 of 5 files are not there.*000004.tar"
  ):
    webdataset.Source(f"{shards}/a-{{000000..000004}}.tar")
  path = write(tmp_path / "a.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
  source = webdataset.Source(path)
  assert source[1]["image"] == b"2"
  write(path, [("c.jpg", b"3" * 20000)])
  with pytest.raises(ValueError, match="a.tar: it changed since it was listed"):
    source[0]
  assert webdataset.Source(path)[0]["image"] == b"3" * 20000


def test_several_patterns(tmp_path):
  paths = [
    write(tmp_path / f"{n}.tar", [(f"{n}.jpg", n.encode())]) for n in "ba"
  ]
  joined = webdataset.Source("::".join(paths))
  assert [r["image"] for r in joined] == [b"b", b"a"]
  assert webdataset.Source(tuple(paths)) == joined
  assert [r["image"] for r in webdataset.Source(str(tmp_path))] == [b"a", b"b"]


def test_headers_are_read_once(shards, monkeypatch):
  webdataset.Source(str(shards))

  def unread(*_):
    raise AssertionError("a header was read")

  monkeypatch.setattr(tar, "samples", unread)
  assert len(webdataset.Source(str(shards))) == 23
