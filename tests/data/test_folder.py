import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data import folder, preprocess

PHOTOS = {
  name: Image.fromarray(load_sample_image(f"{name}.jpg")).resize((60, 40))
  for name in ("china", "flower")
}


def save(path, photo="china", mode="RGB"):
  path.parent.mkdir(parents=True, exist_ok=True)
  kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(path.suffix[1:].lower())
  PHOTOS[photo].convert(mode).save(path, kind)
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
  longer = folder.Source(str(tree)).fingerprint
  file.rename(tree / "cat/3.JPG")
  assert len({first, longer, folder.Source(str(tree)).fingerprint}) == 3
  assert len(first) == 16


def test_hash_and_pickle(tree):
  source = folder.Source(str(tree))
  again = pickle.loads(pickle.dumps(source))
  assert again == source
  assert hash(again) == hash(source)
  assert again[3]["image"] == source[3]["image"]


def test_errors(tree, tmp_path_factory):
  empty = tmp_path_factory.mktemp("empty")
  (empty / "a.gif").write_bytes(b"GIF89a")
  match = rf"{empty}' holds no image; .*\.jpg, \.jpeg, \.png, \.webp"
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
  with pytest.raises(ValueError, match="per_class=7 .* 'cat' with 6 files"):
    folder.Source(str(tmp_path), per_class=7)
  with pytest.raises(ValueError, match="per_class=1 needs classes"):
    folder.Source(str(tmp_path / "cat"), per_class=1)
