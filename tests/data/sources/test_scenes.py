import pickle

import numpy as np
import pytest
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression

from kd_jax.data import pipeline
from kd_jax.data.augment import paste
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits, scene_parts, scenes

MANY = {"size": 64, "digits": (2, 4), "min_size": 0.25, "max_size": 0.5}


def _stack(source, key):
  return np.stack([record[key] for record in source])


def test_records_are_what_they_claim():
  source = scenes.Source(length=40, size=24)
  images, labels = _stack(source, "image"), _stack(source, "label")
  assert (images.shape, images.dtype) == ((40, 24, 24, 3), np.uint8)
  assert labels.tolist() == [i % 10 for i in range(40)]
  assert [record["id"] for record in source] == list(range(40))
  assert len({image.tobytes() for image in images}) == 40
  assert (source.num_classes, len(source)) == (10, 40)
  assert source.mask_names == ("background", *"0123456789")
  with pytest.raises(IndexError):
    source[40]


@pytest.mark.parametrize("fields", [{"size": 32}, MANY], ids=["one", "many"])
def test_masks_boxes_and_classes_agree(fields):
  source = scenes.Source(length=60, classes=(7, 2, 5), **fields)
  counts = []
  for record in source:
    mask, masks, classes = (record[k] for k in ("mask", "masks", "classes"))
    assert (mask.dtype, masks.dtype) == (np.int16, bool)
    assert masks.sum(0).max() == 1  # visible parts do not overlap
    expected = np.zeros_like(mask)
    for kind, each, box in zip(classes, masks, record["boxes"], strict=True):
      expected[each] = 1 + kind
      rows, columns = np.nonzero(each)
      low, high = (columns.min(), rows.min()), (columns.max(), rows.max())
      np.testing.assert_array_equal(box, [*low, *np.add(high, 1)])
      assert each.sum() > 12
    np.testing.assert_array_equal(mask, expected)
    counts.append(len(classes))
    assert set(np.unique(mask)) - {0} == set(1 + classes)
    assert record["label"] == (classes[0] if fields == {"size": 32} else -1)
  assert set(counts) == ({1} if fields == {"size": 32} else {2, 3, 4})
  assert source.mask_names == ("background", "7", "2", "5")


def test_the_digit_is_there(monkeypatch):
  """Upright, as large as the image and on white, it is one of its class."""
  white = np.full((427, 640, 3), 255, np.uint8)
  monkeypatch.setattr(scene_parts, "photographs", lambda: (white,))
  source = scenes.Source(
    "test", length=80, size=64, noise=0, rotation=0, min_size=1, max_size=1
  )
  known = digits.Source("test")
  glyphs = _stack(known, "image")[..., 0].reshape(360, -1) / 255
  for record in source:
    ink = 255.0 - record["image"].mean(-1)
    ink /= ink.max()
    clear = np.abs(ink - 0.5) > 0.02  # pixels are rounded
    np.testing.assert_array_equal((record["mask"] > 0)[clear], ink[clear] > 0.5)
    part = ink.reshape(8, 8, 8, 8).mean((1, 3)).ravel()
    match = np.corrcoef(part, glyphs)[0, 1:]
    assert match.max() > 0.9
    assert known[int(match.argmax())]["label"] == record["label"]


def test_splits_share_neither_digits_nor_photographs():
  parts = scene_parts.PARTS.values()
  glyphs = {}
  for part in parts:
    each = [scene_parts.glyphs(part.digits, digit) for digit in range(10)]
    glyphs[part.digits] = [image.tobytes() for image in np.concatenate(each)]
  assert [len(found) for found in glyphs.values()] == [1077, 360, 360]
  assert len(set().union(*glyphs.values())) == 1797
  test = [record["image"][..., 0].tobytes() for record in digits.Source("test")]
  assert sorted(test) == sorted(glyphs["test"])
  columns = [set(range(part.left, part.right)) for part in parts]
  assert sum(map(len, columns)) == len(set().union(*columns)) == 640


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_backgrounds_are_of_their_own_columns(split, monkeypatch):
  columns = np.arange(640, dtype=np.uint16)
  photo = np.zeros((427, 640, 3), np.uint8)
  photo[..., 0], photo[..., 1] = columns >> 8, columns & 255
  monkeypatch.setattr(scene_parts, "photographs", lambda: (photo,))
  # Nothing enlarged or averaged, so that pixels still say their column.
  monkeypatch.setattr(scene_parts, "_CUTS", (32, 32))
  monkeypatch.setattr(paste, "blend", lambda image, *_: image)
  source = scenes.Source(split, length=300, noise=0)
  images = _stack(source, "image").astype(int)
  seen = np.unique(images[..., 0] * 256 + images[..., 1])
  part = scene_parts.PARTS[split]
  assert part.left <= seen.min() < part.left + 5
  assert part.right > seen.max() > part.right - 6


def test_backgrounds_are_real():
  photos = load_sample_images().images
  part = scene_parts.PARTS["test"]
  rng = np.random.default_rng(0)
  means = [scene_parts.background(part, 32, rng).mean() for _ in range(300)]
  expected = np.mean([photo[:, 512:].mean() for photo in photos])
  assert abs(np.mean(means) - expected) < 15
  assert np.std(means) > 30


def test_colours_do_not_give_the_class_away():
  source = scenes.Source(length=3000, size=24)
  images = _stack(source, "image").reshape(3000, -1, 3) / 255.0
  colours = np.concatenate([images.mean(1), images.std(1)], 1)
  labels = _stack(source, "label")
  model = LogisticRegression().fit(colours[:2000], labels[:2000])
  accuracy = model.score(colours[2000:], labels[2000:])
  assert accuracy < 0.1 + 3 * (0.1 * 0.9 / 1000) ** 0.5


def test_noise():
  calm = _stack(scenes.Source(length=20, noise=0), "image").astype(float)
  loud = _stack(scenes.Source(length=20, noise=5), "image").astype(float)
  clear = (calm > 30) & (calm < 225)
  assert abs((loud - calm)[clear].std() - 5) < 0.1


@pytest.mark.parametrize("fields", [{}, MANY], ids=["one", "many"])
def test_a_scene_follows_from_its_fields_and_number(fields):
  source = scenes.Source(length=100, **fields)
  again = pickle.loads(pickle.dumps(source))
  assert again == source and hash(again) == hash(source)
  for index in (63, 5):
    for key, value in source[index].items():
      np.testing.assert_array_equal(value, again[index][key])
  part = scenes.Source("train[60:70]", length=100, **fields)
  np.testing.assert_array_equal(part[3]["image"], source[63]["image"])
  assert part[3]["id"] == 3
  assert (source[63]["image"] != source[64]["image"]).any()
  assert part.describe(3) == "scenes[train[60:70]] record 3"


def test_few_scenes_are_made_once(monkeypatch):
  source = scenes.Source(length=10)
  first = source[3]
  assert source[3] is first and not first["image"].flags.writeable
  assert scenes.Source(length=10)[3] is first
  assert scenes.Source(length=10, labels=False)[3] is not first
  assert len(pickle.dumps(source)) < 500
  monkeypatch.setattr(scenes, "_KEPT", 0)
  large = scenes.Source(length=20, split="train[:10]")
  assert large[3] is not large[3]
  np.testing.assert_array_equal(large[3]["image"], first["image"])


def test_fingerprints_tell_images_apart():
  changes = [
    {}, {"split": "test"}, {"split": "validation"}, {"size": 24}, {"seed": 1},
    {"length": 99}, {"classes": (1, 2)}, {"classes": (2, 1)}, {"digits": 2},
    {"min_size": 0.5}, {"max_size": 0.7}, {"rotation": 0.0}, {"noise": 0.0},
  ]  # fmt: skip
  prints = [scenes.Source(**{"length": 100} | c).fingerprint for c in changes]
  assert len(set(prints)) == len(changes) and {*map(len, prints)} == {16}
  images = [scenes.Source(**{"length": 100} | c)[7]["image"] for c in changes]
  assert len({each.tobytes() for each in images}) == len(changes) - 1  # length
  same = scenes.Source(length=100, labels=False).fingerprint
  assert same == prints[0] == scenes.Source("train[:100]").fingerprint


def test_few_of_every_class():
  few = scenes.Source(length=100, classes=(5, 6, 9), per_class=4)
  whole = scenes.Source(length=100, classes=(5, 6, 9))
  assert np.bincount(_stack(few, "label")).tolist() == [4, 4, 4]
  np.testing.assert_array_equal(few[11]["image"], whole[11]["image"])
  assert (
    few.fingerprint
    == scenes.Source("train[:12]", length=100, classes=(5, 6, 9)).fingerprint
  )
  assert (few.class_names, few.num_classes) == (("5", "6", "9"), 3)


def test_hidden_labels():
  source = scenes.Source(length=10, labels=False)
  assert (source.num_classes, source.class_names) == (0, ())
  assert source.mask_names == ()
  assert source[3].keys() == {"image", "label", "id"}
  assert {record["label"] for record in source} == {-1}
  shown = scenes.Source(length=10)[3]["image"]
  np.testing.assert_array_equal(source[3]["image"], shown)
  assert scenes.Source(digits=2).num_classes == 0


def test_batches_take_what_they_need():
  source = scenes.Source(length=20, size=24)
  views = Preprocess(24, augment="none", crop_pct=1.0)
  with pipeline.train_batches(source, views, batch_size=4, seed=0) as batches:
    batch = next(batches)
  assert batch.image.shape == (4, 24, 24, 3)
  sums = {int(record["image"].sum()): record["label"] for record in source}
  found = [sums[int(image.sum())] for image in np.asarray(batch.image)]
  assert found == np.asarray(batch.label).tolist()


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"split": "all"}, r"has \['test', 'train', 'validation'\]"),
    ({"split": "train[5:5]"}, "is empty"),
    ({"classes": (1, 1)}, "different digits 0 to 9"),
    ({"classes": (10,)}, "different digits 0 to 9"),
    ({"digits": 0}, "digits=0; it must be a number from 1 on"),
    ({"digits": (3, 2)}, r"digits=\(3, 2\); .* or two of them"),
    ({"digits": [1, 2, 3]}, r"\(1, 2, 3\); .* or two of them"),
    ({"digits": 1.5}, "digits=1.5; it must be a number"),
    ({"size": 0}, "size=0; it must be at least 1"),
    ({"length": 0}, "length=0; it must be at least 1"),
    ({"seed": -1}, "seed=-1; it must be at least 0"),
    ({"per_class": -1}, "per_class=-1; it must be at least 0"),
    ({"per_class": 11, "length": 100}, "more than the 100 scenes of split"),
    ({"per_class": 1, "digits": (1, 2)}, "needs one digit in every scene"),
    ({"size": 16}, "min_size=0.45; .* at least 8 pixels of size=16"),
    ({"max_size": 0.4}, "max_size=0.4; .* from min_size=0.45 to 1"),
    ({"max_size": 1.1}, "max_size=1.1; .* from min_size=0.45 to 1"),
    ({"rotation": -1.0}, r"rotation=-1.0; .* in \[0, 180\]"),
    ({"noise": -1.0}, "noise=-1.0; it must be at least 0"),
  ],
)
def test_errors(fields, message):
  with pytest.raises(ValueError, match=message):
    scenes.Source(**fields)
