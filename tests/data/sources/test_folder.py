import hashlib
import os
import pickle
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data import preprocess
from kd_jax.data.sources import folder

PHOTOS = {
  name: Image.fromarray(load_sample_image(f"{name}.jpg")).resize((60, 40))
  for name in ("china", "flower")
}

PINNED = ["cat/1.jpg", "cat/2.jpg", "cat/5.jpg"]
PINNED += ["dog/1.jpg", "dog/3.jpg", "dog/4.jpg"]


def save(path, photo="china", mode="RGB"):
  path.parent.mkdir(parents=True, exist_ok=True)
  kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(path.suffix[1:].lower())
  PHOTOS[photo].convert(mode).save(path, kind)
  return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  path = tmp_path_factory.mktemp("cache")
  monkeypatch.setenv("KD_JAX_CACHE", str(path))
  return path


@pytest.fixture
def tree(tmp_path):
  save(tmp_path / "dog/deep/b.JPEG", "flower", "L")
  save(tmp_path / "dog/a.png", "flower")
  save(tmp_path / "cat/2.webp")
  save(tmp_path / "cat/1.JPG")
  save(tmp_path / "Ant/x.jpeg")
  (tmp_path / "cat/notes.txt").write_text("no image")
  save(tmp_path / "cat/._1.jpg")
  save(tmp_path / ".cache/1.jpg")
  return tmp_path


def test_sorted_labelled_bytes(tree):
  source = folder.Source(str(tree))
  assert source.class_names == ("Ant", "cat", "dog")
  assert (len(source), source.num_classes) == (5, 3)
  paths = ["Ant/x.jpeg", "cat/1.JPG", "cat/2.webp", "dog/a.png"]
  paths.append("dog/deep/b.JPEG")
  for i, (path, label) in enumerate(zip(paths, [0, 1, 1, 2, 2], strict=True)):
    record = source[i]
    assert record["image"] == (tree / path).read_bytes()
    assert (record["label"], record["id"]) == (label, i)
    assert source.describe(i) == str(tree / path)
  assert list(source.ids()) == paths
  with pytest.raises(IndexError):
    source[5]


def test_decoded_files_show_the_photo(tree):
  source = folder.Source(str(tree))
  for i in range(len(source)):
    photo = PHOTOS["flower" if source[i]["label"] == 2 else "china"]
    pixels = preprocess.pixels(source[i]).astype(int)
    mode = "L" if i == 4 else "RGB"
    expected = np.asarray(photo.convert(mode).convert("RGB"), int)
    assert np.abs(pixels - expected).mean() < 12


def test_slice_keeps_the_labels_of_the_whole_tree(tree):
  source = folder.Source(str(tree), split="all[60%:]")
  assert [record["label"] for record in source] == [2, 2]
  assert [record["id"] for record in source] == [0, 1]
  assert source.num_classes == 3


def test_hidden_labels(tree):
  source = folder.Source(str(tree), labels=False)
  assert source.class_names == ()
  assert source.num_classes == 0
  assert {record["label"] for record in source} == {-1}


@pytest.mark.parametrize(
  "files", [("1.png", "2.png"), ("a/1.png", "a/2.png"), ("a/1.png", "0.png")]
)
def test_unlabelled_trees(tmp_path, files):
  for file in files:
    save(tmp_path / file)
  source = folder.Source(str(tmp_path))
  assert (source.num_classes, source.class_names) == (0, ())
  assert [record["label"] for record in source] == [-1, -1]


def test_links_are_followed(tree, tmp_path_factory):
  root = tmp_path_factory.mktemp("links")
  for name in ("cat", "dog"):
    (root / name).symlink_to(tree / name)
  assert folder.Source(str(root)).class_names == ("cat", "dog")


def test_fingerprint_follows_names_and_sizes(tree):
  first = folder.Source(str(tree)).fingerprint
  assert folder.Source(str(tree) + "/", labels=False).fingerprint == first
  assert folder.Source(str(tree), split="all[1:]").fingerprint != first
  file = tree / "cat/1.JPG"
  file.write_bytes(file.read_bytes() + b"\0")
  os.utime(file.parent)  # listed again because the directory changed
  longer = folder.Source(str(tree)).fingerprint
  file.rename(tree / "cat/3.JPG")
  assert len({first, longer, folder.Source(str(tree)).fingerprint}) == 3
  lines = [(path, (tree / path).stat().st_size) for path in ("cat/2.webp",)]
  text = "".join(f"{path}\0{size}\n" for path, size in lines)
  one = folder.Source(str(tree), split="all[1:2]").fingerprint
  assert one == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_hash_and_pickle(tree):
  source = folder.Source(str(tree))
  again = pickle.loads(pickle.dumps(source))
  assert again == source
  assert hash(again) == hash(source)
  assert again[3]["image"] == source[3]["image"]
  assert again.fingerprint == source.fingerprint


def test_errors(tree, tmp_path_factory):
  empty = tmp_path_factory.mktemp("empty")
  (empty / "a.heic").write_bytes(b"1")
  match = rf"{empty}' holds no image; .*\.jpg, .*\.webp, .*\.tiff"
  with pytest.raises(ValueError, match=match):
    folder.Source(str(empty))
  with pytest.raises(ValueError, match="nowhere' is not a directory; .*jpeg"):
    folder.Source(str(empty / "nowhere"))
  with pytest.raises(ValueError, match=r"names 'train'; .* has \['all'\]"):
    folder.Source(str(tree), split="train")


def test_some_files_of_every_class(tmp_path):
  for name in ("cat", "dog"):
    for i in range(6):
      (tmp_path / name).mkdir(exist_ok=True)
      (tmp_path / name / f"{i}.jpg").write_bytes(b"")
  chosen = folder.Source(str(tmp_path), per_class=3)
  labels = [chosen[i]["label"] for i in range(len(chosen))]
  assert labels == [0, 0, 0, 1, 1, 1]
  assert (
    chosen.fingerprint == folder.Source(str(tmp_path), per_class=3).fingerprint
  )
  other = folder.Source(str(tmp_path), per_class=3, seed=1)
  assert other.fingerprint != chosen.fingerprint
  with pytest.raises(ValueError, match="per_class=7 .* 'cat' with 6 records"):
    folder.Source(str(tmp_path), per_class=7)
  with pytest.raises(ValueError, match="per_class=1 needs classes.*or set csv"):
    folder.Source(str(tmp_path / "cat"), per_class=1)
  # The draw that earlier versions made: published figures depend on it.
  assert list(chosen.ids()) == PINNED
  assert chosen.drawn and not folder.Source(str(tmp_path)).drawn


def test_a_share_of_all_files(tmp_path):
  for i in range(40):
    (tmp_path / f"{i:02}.png").write_bytes(b"")
  every = folder.Source(str(tmp_path))
  source = folder.Source(str(tmp_path), percent=25.0, seed=2)
  drawn = sorted(np.random.RandomState(2).permutation(40)[:10])
  assert list(source.ids()) == [f"{i:02}.png" for i in drawn]
  assert source.drawn and source.num_classes == 0
  half = folder.Source(str(tmp_path), "all[50%:]", percent=25.0, seed=2)
  assert list(half.ids()) == list(source.ids())[5:]
  rest = folder.Source(str(tmp_path), percent=25.0, seed=2, rest=True)
  assert sorted([*source.ids(), *rest.ids()]) == sorted(every.ids())
  assert rest.drawn and len(rest) == 30
  assert rest.fingerprint not in (source.fingerprint, every.fingerprint)
  for fields, message in (
    ({"rest": True}, "rest=True leaves no file: .* all 40. Lower percent"),
    ({"percent": 120.0}, r"percent=120.0; .* at most 100"),
    ({"percent": -1.0}, "percent=-1.0"),
    ({"per_class": -1}, "per_class=-1"),
    ({"percent": 0.1}, "percent=0.1 of 40 records is none"),
  ):
    with pytest.raises(ValueError, match=message):
      folder.Source(str(tmp_path), **fields)


def write_csv(path, lines, encoding="utf-8"):
  path.write_text("\n".join(lines), encoding)
  return str(path)


def test_labels_from_csv(tree, tmp_path_factory):
  file = tmp_path_factory.mktemp("csv") / "labels.csv"
  lines = ["split,label,path", "a,b2,./dog/a.png", f'x,b10,"{tree}/cat/1.JPG"']
  lines += ["", "a,b10,Ant/x.jpeg", 'b,b2," dog/deep/b.JPEG"']
  lines += ["b,a,cat/2.webp"]
  source = folder.Source(str(tree), csv=write_csv(file, lines, "utf-8-sig"))
  assert source.class_names == ("a", "b10", "b2")
  assert [record["label"] for record in source] == [1, 1, 0, 2, 2]
  plain = folder.Source(str(tree))
  assert source.fingerprint == plain.fingerprint
  two = folder.Source(str(tree), "all[3:]", csv=str(file))
  assert [record["label"] for record in pickle.loads(pickle.dumps(two))] == [
    2,
    2,
  ]
  hidden = folder.Source(str(tree), csv=str(file), labels=False, per_class=1)
  assert (len(hidden), hidden.num_classes, hidden[0]["label"]) == (3, 0, -1)
  numbers = [re.sub(",b?(2|10|a),", r",\1,", line) for line in lines]
  numbers[-1] = "b,-7,cat/2.webp"
  source = folder.Source(str(tree), csv=write_csv(file, numbers))
  assert source.class_names == ("-7", "2", "10")
  assert [record["label"] for record in source] == [2, 2, 0, 1, 1]


def test_csv_of_other_files(tree):
  names = ["Ant/x.jpeg", "cat/1.JPG", "cat/2.webp", "dog/a.png"]
  whole = ["path,label", *(f"{n},x" for n in names), "dog/deep/b.JPEG,y"]
  for lines, message in (
    (["image,label", "a,b"], r"columns \['image', 'label'\]; its first line"),
    ([], r"has the columns \[\]"),
    (["path;label", "a;b"], "with a comma between them"),
    (whole[:3], r"not name 3 of 5 files .*\['cat/2.webp', 'dog/a.png', 'dog/d"),
    ([*whole, "q/1.jpg,x", "r,y"], r"names 2 files .*\['q/1.jpg', 'r'\].*Ant"),
    ([*whole, "cat/1.JPG,y"], r"names 1 files twice, such as \['cat/1.JPG'\]"),
    ([*whole, "a,", "b"], r"2 lines without .* the lines \[7, 8\]"),
  ):
    file = write_csv(tree / "l.csv", lines)
    with pytest.raises(ValueError, match=message):
      folder.Source(str(tree), csv=file)
  with pytest.raises(ValueError, match="no.csv' cannot be read: No such file"):
    folder.Source(str(tree), csv="no.csv")
  (tree / "l.csv").write_text("path,label\n" + "a" * 200000)
  with pytest.raises(
    ValueError, match="l.csv' is not a CSV file: field larger"
  ):
    folder.Source(str(tree), csv=file)


def test_files_that_change_or_vanish(tree, cache):
  (tree / "dog/c.png").symlink_to(tree / "nothing")
  (tree / "dog/d.png").symlink_to("d.png")
  os.mkfifo(tree / "dog/e.png")
  source = folder.Source(str(tree))
  for row, message in ((4, "a link to nothing"), (7, "not a file")):
    with pytest.raises(ValueError, match=f"dog/[ce].png: {message}. Remove"):
      source[row]
  with pytest.raises(ValueError, match=r"dog/d.png: a link to nothing"):
    source[5]
  (tree / "cat/1.JPG").write_bytes(b"12345")
  with pytest.raises(
    ValueError, match=rf"1.JPG: it changed.* to 5 bytes. Touch.*{cache}/index/"
  ):
    source[1]
  (tree / "cat/2.webp").unlink()
  with pytest.raises(ValueError, match="2.webp: gone since it was listed"):
    source[2]
  (tree / "dog/a.png").unlink()
  (tree / "dog/a.png").mkdir()
  with pytest.raises(ValueError, match="a.png: cannot be read, Is a directory"):
    source[3]


def test_home_is_understood(tree, monkeypatch):
  monkeypatch.setenv("HOME", str(tree))
  source = folder.Source("~/cat")
  assert source.describe(0) == str(tree / "cat/1.JPG")
