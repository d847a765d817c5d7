import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from kd_jax.data.augment import crops
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits
from kd_jax.train import views
from kd_jax.types import Batch

PHOTO = load_sample_image("flower.jpg")[::6, ::5].copy()
RECORD = {"image": PHOTO, "label": 0, "id": 4}


def train(preprocess, seed, record=RECORD):
  """The first training view."""
  return preprocess.train(record, lambda k: np.random.default_rng(seed + k))[
    "image"
  ][0]


def test_crop_follows_its_fields_in_torchvision_order():
  preprocess = Preprocess(
    image_size=24,
    train_interpolation="bilinear",
    color_jitter=(0.4, 0.3, 0.2),
    lighting=0.1,
  )
  found = train(preprocess, 3)
  rng = np.random.default_rng(3)
  height, width = PHOTO.shape[:2]
  box = crops.random_box(
    height, width, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)
  )
  image = crops.crop(PHOTO, box)
  image = crops.resize(image, 24, 24, interpolation="bilinear")
  image = crops.mirror(image) if rng.random() < 0.5 else image
  image = crops.random_jitter(image, rng, (0.4, 0.3, 0.2))
  image = crops.random_lighting(image, rng, 0.1)
  np.testing.assert_array_equal(found, image)
  assert (found.shape, found.dtype) == ((24, 24, 3), np.uint8)


def test_views_differ_by_key_only():
  preprocess = Preprocess(image_size=16)
  first, same, other = (train(preprocess, s) for s in (0, 0, 1))
  np.testing.assert_array_equal(first, same)
  assert (first != other).any()


def test_none_is_the_evaluation_view():
  preprocess = Preprocess(image_size=16, augment="none")
  expected = crops.center(PHOTO, 16, crop_pct=0.875, interpolation="bicubic")
  np.testing.assert_array_equal(train(preprocess, 0), expected)
  np.testing.assert_array_equal(preprocess.eval(RECORD), expected)


def test_shift_moves_the_whole_digit():
  preprocess = Preprocess(image_size=16, crop_pct=1.0, augment="shift", shift=2)
  record = digits.Source()[5]
  whole = preprocess.eval(record)
  np.testing.assert_array_equal(
    whole, crops.resize(record["image"], 16, 16, interpolation="bicubic")
  )
  moved = train(preprocess, 0, record)
  down, right = np.random.default_rng(0).integers(-2, 3, size=2)
  padded = np.pad(whole, ((2, 2), (2, 2), (0, 0)))
  expected = padded[2 - down :, 2 - right :][:16, :16]
  np.testing.assert_array_equal(moved, expected)


def test_fingerprint_covers_every_field():
  base = Preprocess()
  other = {
    "image_size": 32,
    "interpolation": "bilinear",
    "crop_pct": 0.9,
    "crop_mode": "squash",
    "augment": "none",
    "scale": (0.2, 1.0),
    "ratio": (1.0, 1.0),
    "hflip": 0.0,
    "color_jitter": (0.1, 0.1, 0.1),
    "lighting": 0.05,
    "train_interpolation": "bicubic",
    "num_crops": 2,
    "rand_ops": 2,
    "rand_magnitude": 5.0,
    "erase_prob": 0.25,
    "erase_mode": "const",
  }
  prints = {dataclasses.replace(base, **{k: v}).fingerprint()
            for k, v in other.items()}  # fmt: skip
  shifted = Preprocess(augment="shift", shift=1).fingerprint()
  unshifted = Preprocess(augment="shift").fingerprint()
  assert len(prints | {base.fingerprint(), shifted, unshifted}) == 19


def test_fingerprints_of_older_artifacts_hold():
  assert Preprocess().fingerprint() == "642254f1f285e1a6"
  shifted = Preprocess(augment="shift", shift=1)
  assert shifted.fingerprint() == "ea17828838706764"


def test_squash_shows_the_edges_that_the_centre_loses():
  wide = np.full((16, 32, 3), 9, np.uint8)
  wide[:, :4] = 255
  record = {"image": wide, "label": 0, "id": 0}
  fields = {"image_size": 8, "crop_pct": 1.0, "interpolation": "bilinear"}
  center = Preprocess(**fields).eval(record)
  squashed = Preprocess(**fields, crop_mode="squash").eval(record)
  assert center.max() == 9
  assert (squashed[:, 0] > 200).all() and (squashed[:, 2:] == 9).all()


def test_lists_from_configs_are_hashable():
  preprocess = Preprocess(scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
  assert hash(preprocess) == hash(Preprocess())
  assert preprocess.fingerprint() == Preprocess().fingerprint()


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    (
      {"augment": "rrc"},
      r"augment='rrc'; .* \['crop', 'none', 'shift', 'squash'\]",
    ),
    ({"interpolation": "area"}, r"'area'; .* \['bicubic', 'bilinear'\]"),
    ({"crop_mode": "border"}, r"'border'; .* \['center', 'squash'\]"),
    ({"image_size": 0}, "image_size=0; it must be at least 1"),
    ({"crop_pct": 0.0}, r"crop_pct=0.0; it must be in \(0, 1\]"),
    ({"crop_pct": 1.1}, "crop_pct=1.1"),
    ({"scale": (0.0, 1.0)}, "scale=.* it must be 0 < low <= high <= 1"),
    ({"scale": (0.5, 1.5)}, "scale="),
    ({"ratio": (2.0, 1.0)}, "ratio=.* it must be 0 < low <= high"),
    ({"ratio": (1.0,)}, "ratio="),
    ({"hflip": 1.5}, r"hflip=1.5; it must be in \[0, 1\]"),
    ({"color_jitter": (0.1, 0.1)}, "color_jitter=.* 3 numbers"),
    ({"color_jitter": (0.1, 0.1, -0.1)}, "color_jitter=.* 3 numbers"),
    ({"lighting": -1.0}, "lighting=-1.0; it must be at least 0"),
    ({"augment": "shift", "shift": 224}, r"in \[0, image_size\)"),
    ({"train_interpolation": "nearest"}, r"\['area', 'bicubic', 'bilinear'\]"),
    ({"erase_mode": "rand"}, r"erase_mode='rand'; .* \['const', 'pixel'\]"),
    ({"erase_prob": 2.0}, r"erase_prob=2.0; it must be in \[0, 1\]"),
    ({"num_crops": 0}, "num_crops=0; it must be at least 1"),
    ({"rand_ops": -1}, "rand_ops=-1; it must be at least 0"),
    ({"rand_magnitude": 11.0}, r"rand_magnitude=11.0; it must be in \[0, 10\]"),
    ({"canvas": 100}, "canvas=100; .* at least image_size=224"),
    ({"canvas": 256}, "canvas=256 crops on the device, which knows"),
    (
      {"canvas": 256, "train_interpolation": "bilinear", "lighting": 0.1},
      r"canvas=256 crops on the device, where \['lighting'\] are not done",
    ),
    (
      {"rand_ops": 2, "augment": "none"},
      "rand_ops=2 has no effect with augment='none'",
    ),
    ({"shift": 2}, "shift=2 has no effect with augment='crop'; set"),
  ],
)
def test_errors(fields, match):
  with pytest.raises(ValueError, match=match):
    Preprocess(**fields)


def test_corrupt_record():
  record = {"image": b"no", "label": 0, "id": 4}
  with pytest.raises(ValueError, match="record 4: corrupt"):
    Preprocess(image_size=8).eval(record)


def test_crops_of_one_image_are_drawn_one_by_one():
  def views(count):
    preprocess = Preprocess(
      image_size=16, num_crops=count, rand_ops=2, erase_prob=0.5
    )
    return preprocess.train(RECORD, lambda k: np.random.default_rng([7, k]))

  three, one = views(3)["image"], views(1)["image"]
  assert (three.shape, three.dtype) == ((3, 16, 16, 3), np.uint8)
  np.testing.assert_array_equal(three[:1], one)
  assert len({view.tobytes() for view in three}) == 3


def test_a_canvas_leaves_the_cropping_to_the_device():
  fields = {
    "image_size": 24,
    "num_crops": 4,
    "train_interpolation": "bicubic",
  }

  def rng(crop):
    return np.random.default_rng([1, crop])

  host = Preprocess(**fields).train(RECORD, rng)["image"]
  found = Preprocess(**fields, canvas=160).train(RECORD, rng)
  assert {k: (v.shape, v.dtype.name) for k, v in found.items()} == {
    "image": ((160, 160, 3), "uint8"),
    "geometry": ((4, 7), "int32"),
  }
  assert set(found["geometry"][:, 4].tolist()) == {0, 1}
  height, width = PHOTO.shape[:2]
  np.testing.assert_array_equal(found["image"][:height, :width], PHOTO)
  batch = Batch(
    image=found["image"][None],
    label=np.array([3]),
    mask=np.ones(1, np.float32),
    geometry=found["geometry"][None],
  )
  seen = views.seen(batch, views.Cut(24, "bicubic"))
  assert np.abs(255 * np.asarray(seen.image) - host).max() < 1.01
  assert seen.label.tolist() == [3] * 4 and seen.mask.tolist() == [1] * 4
  assert seen.geometry is None


def test_nothing_is_drawn_where_nothing_varies():
  def refuses(crop):
    raise AssertionError(f"crop {crop} asked for a generator")

  image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
  still = Preprocess(8, augment="none", crop_pct=1.0)
  found = still.train({"image": image, "id": 0}, refuses)
  np.testing.assert_array_equal(found["image"], image[None])
