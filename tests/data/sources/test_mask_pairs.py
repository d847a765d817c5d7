import pickle
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_jax.data import examples
from kd_jax.data.sources import pairs

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((30, 20))
NAMES = ["1", "a/2", "a/3", "b/4"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


def mask_of(name):
  """Numbers 0..3, and a corner of ignored pixels."""
  raw = np.random.default_rng(ord(name[-1])).integers(0, 4, (20, 30), np.uint8)
  raw[:3, :4] = 255
  return raw


def classes_of(name):
  raw = mask_of(name).astype(int)
  return np.where(raw == 255, -1, raw)


def save(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(path)


@pytest.fixture
def place(tmp_path):
  for name in NAMES:
    save(tmp_path / f"images/{name}.jpg", PHOTO.rotate(ord(name[-1])))
    save(tmp_path / f"masks/{name}.png", mask_of(name))
  return tmp_path


def make(place, **fields):
  return pairs.Source(str(place), **{"classes": 4, **fields})


def test_every_pair(place):
  source = make(place, classes=["sky", "hill", "wall", "tree"])
  assert source.mask_names == ("sky", "hill", "wall", "tree")
  assert (len(source), source.num_classes, source.class_names) == (4, 0, ())
  assert list(source.ids()) == [f"{name}.jpg" for name in NAMES]
  assert source.all_labels() == [-1] * 4
  for index, name in enumerate(NAMES):
    record = source[index]
    assert record["image"] == (place / f"images/{name}.jpg").read_bytes()
    assert (record["label"], record["id"]) == (-1, index)
    assert record["mask"].dtype == np.int16
    np.testing.assert_array_equal(record["mask"], classes_of(name))
  assert source[-1]["id"] == 3
  decoded = examples.Decoded(source)[2]
  assert decoded["image"].shape == (20, 30, 3)
  again = pickle.loads(pickle.dumps(source))
  assert again == source and hash(again) == hash(source)
  np.testing.assert_array_equal(again[1]["mask"], source[1]["mask"])


def test_parts_and_fingerprints(place):
  whole, half = make(place), make(place, split="all[50%:]")
  assert list(half.ids()) == ["a/3.jpg", "b/4.jpg"]
  assert half[0]["image"] == whole[2]["image"]
  (place / "val.txt").write_text("b/4\n\n1\n")
  listed = make(place, list_file="val.txt")
  assert list(listed.ids()) == ["b/4.jpg", "1.jpg"]
  prints = {source.fingerprint for source in (whole, half, listed)}
  assert len(prints) == 3
  # What is not on the list may lack its mask.
  (place / "masks/a/2.png").unlink()
  assert len(make(place, list_file=str(place / "val.txt"))) == 2


def test_suffixes_and_mapping_as_cityscapes_has_them(tmp_path):
  ids = np.array([[7, 8, 0], [33, 255, 10]], np.uint8)
  image = Image.new("RGB", (3, 2))
  save(tmp_path / "leftImg8bit/train/aachen/a_0_leftImg8bit.png", image)
  for kind, raw in (("labelIds", ids), ("instanceIds", ids * 0 + 200)):
    save(tmp_path / f"gtFine/train/aachen/a_0_gtFine_{kind}.png", raw)
  source = make(
    tmp_path,
    images="leftImg8bit/train",
    masks="gtFine/train",
    image_suffix="_leftImg8bit",
    mask_suffix="_gtFine_labelIds",
    classes=19,
    mapping="cityscapes",
  )
  assert source[0]["mask"].tolist() == [[0, 1, -1], [18, -1, -1]]


def test_masks_with_palettes(place):
  for name in NAMES:
    image = Image.new("P", (30, 20))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [9] * 756)
    image.putdata(mask_of(name).ravel().tolist())
    image.save(place / f"masks/{name}.png")
  np.testing.assert_array_equal(make(place)[0]["mask"], classes_of("1"))


def test_mistakes_of_single_files(place):
  raw, short = mask_of("3"), mask_of("2")[:10]
  raw[5, 5] = 37
  bad = {
    "a/2": (short, r"images/a/2.jpg: its mask has 10x30 pixels, .* 20x30"),
    "a/3": (raw, r"masks/a/3.png holds 37; classes are 0\.\.3, ignore 255"),
    "b/4": (np.asarray(PHOTO), r"masks/b/4.png: its pixels are RGB, not lab"),
  }
  for name, (image, _) in bad.items():
    save(place / f"masks/{name}.png", image)
  source = make(place)
  for name, (_, match) in bad.items():
    with pytest.raises(ValueError, match=match):
      examples.Decoded(source)[NAMES.index(name)]
  (place / "masks/b/4.png").write_bytes(b"torn")
  with pytest.raises(ValueError, match="it changed since it was listed"):
    source[3]
  with pytest.raises(ValueError, match=r"masks/b/4.png: unreadable \(4 bytes"):
    make(place, split="all[3:]")


def test_mistakes_of_the_folders(place):
  (place / "images/a/2.jpg").unlink()
  match = r"images: no image for the mask 'a/2' \(1 of 4 lack one\).*list_file"
  with pytest.raises(ValueError, match=match):
    make(place)
  (place / "masks/a/2.png").rename(place / "masks/a/3b.png")
  save(place / "images/a/3b.jpg", PHOTO)
  save(place / "images/9.jpg", PHOTO)
  with pytest.raises(ValueError, match="masks: no mask for the image '9'"):
    make(place)
  (place / "list.txt").write_text("1\n9\n")
  with pytest.raises(ValueError, match="no mask for the line '9'"):
    make(place, list_file="list.txt")
  save(place / "images/1.png", PHOTO)
  with pytest.raises(ValueError, match="'1.jpg' and '1.png' differ in their e"):
    make(place)


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"classes": ()}, "classes names 0"),
    ({"images": "photos"}, r"images='photos': there is no folder '.*photos'"),
    ({"masks": "labels"}, "masks='labels': there is no folder .*data.masks"),
    ({"image_suffix": "_x"}, "no image of 'images' has a mask in .* nothing"),
    ({"list_file": "no.txt"}, "list_file='no.txt': cannot be read"),
    ({"list_file": "empty.txt"}, "empty.txt' names no pair"),
    ({"list_file": "twice.txt"}, "twice.txt' names a pair twice"),
    ({"split": "train"}, r"names 'train'; the source has \['all'\]"),
    ({"classes": 3}, r"masks/1.png holds 3; classes are 0\.\.2"),
  ],
)
def test_mistakes_of_the_config(place, fields, match):
  (place / "empty.txt").write_text("\n")
  (place / "twice.txt").write_text("1\n1\n")
  with pytest.raises(ValueError, match=match):
    make(place, **fields)


def test_masks_do_not_turn_with_exif_tags(place):
  class Turned(pairs.Source):
    exif_rotation = True

  match = re.escape("exif_rotation would turn images but not their masks")
  with pytest.raises(ValueError, match=match):
    examples.Decoded(Turned(str(place), classes=4))
