import dataclasses
import types

import blocks
import cv2
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.data import dense as dense_lib
from kd_jax.data import pipeline
from kd_jax.data.augment import joint, photometric
from kd_jax.data.bank import compatibility
from kd_jax.data.dense import Dense
from kd_jax.data.sources import digits
from kd_jax.train.views import Cut, cut_of

GEOMETRY = {"photometric": 0.0, "blur_prob": 0.0}
STILL = {**GEOMETRY, "rotate_prob": 0.0, "hflip": 0.0}


def view(settings, record, seed=0):
  found = settings.train(record, lambda crop: np.random.default_rng(seed))
  assert found["image"].dtype == np.uint8 and found["label"].dtype == np.int16
  side = settings.image_size
  assert found["image"].shape == (1, side, side, 3)
  assert found["label"].shape == (1, side, side)
  return found["image"][0], found["label"][0]


def inside(mask):
  """Where the 7x7 pixels around have one and the same label."""
  kernel = np.ones((7, 7), np.uint8)
  same = cv2.erode(mask, kernel) == cv2.dilate(mask, kernel)
  return np.pad(same[3:-3, 3:-3], 3)


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_stay_one_on_the_other(seed):
  settings = Dense(72, rotate_prob=0.8, ratio=(0.8, 1.25), **GEOMETRY)
  image, label = view(settings, blocks.record(seed=seed), seed)
  colours = np.concatenate([blocks.COLOURS, [settings.fill]])  # -1 is the last
  keep = inside(label)
  assert keep.mean() > 0.4 and len(np.unique(label[keep])) >= 2
  np.testing.assert_array_equal(image[keep], colours[label[keep]])
  assert set(np.unique(label)) <= {-1, 0, 1, 2, 3}


def test_draws_are_one_stream_in_a_fixed_order():
  found = dense_lib.draw(np.random.default_rng(3))
  whole = np.random.default_rng(3).random(17).tolist()
  first, last = list(found[:5]), list(found[6:])
  assert first + found.colours.tolist() + last == whole
  assert found._fields[:6] == (
    "scale", "ratio", "rotate", "angle", "blur", "colours",
  )  # fmt: skip
  assert found._fields[6:] == ("flip", "down", "right")


def test_the_generator_decides():
  record = blocks.record()
  first, again, other = (view(Dense(32), record, s) for s in (1, 1, 2))
  np.testing.assert_array_equal(first[0], again[0])
  np.testing.assert_array_equal(first[1], again[1])
  assert (first[0] != other[0]).any() and (first[1] != other[1]).any()


def test_pixels_are_those_of_the_authors_order():
  """Against scale, rotate, blur, colours, mirror, pad, crop, one by one."""
  record, colour = blocks.record(50, 90), (124, 116, 104)
  for seed in range(8):
    settings = Dense(64, rotate_prob=1.0)
    found = view(settings, record, seed)
    d = dense_lib.draw(np.random.default_rng(seed))
    factor, angle = 0.5 + 1.5 * d.scale, -10 + 20 * d.angle
    image, mask = (
      cv2.resize(record[name], None, fx=factor, fy=factor, interpolation=how)
      for name, how in (("image", 1), ("mask", 0))
    )
    h, w = mask.shape
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1)
    image = cv2.warpAffine(image, turn, (w, h), borderValue=colour)
    mask = cv2.warpAffine(mask, turn, (w, h), flags=0, borderValue=-1)
    if d.blur < 0.5:
      image = cv2.GaussianBlur(image, (5, 5), 0)
    image = photometric.distort(image, photometric.draw(d.colours, 1.0))
    if d.flip < 0.5:
      image, mask = image[:, ::-1], mask[:, ::-1]
    pad = [(max(64 - n, 0) // 2, max(64 - n, 0) - max(64 - n, 0) // 2)
           for n in (h, w)]  # fmt: skip
    mask = np.pad(mask, pad, constant_values=-1)
    canvas = np.tile(np.uint8(colour), (*mask.shape, 1))
    canvas[pad[0][0] : pad[0][0] + h, pad[1][0] : pad[1][0] + w] = image
    top, left = (int(u * (n - 63)) for u, n in zip(d[7:], mask.shape))  # noqa: B905
    part = slice(top, top + 64), slice(left, left + 64)
    # OpenCV's way back from HSV differs by a level at the ends of rows.
    plain = photometric.draw(d.colours, 1.0)[2:4] == (1, 0)
    far = np.abs(found[0].astype(int) - canvas[part]).max()
    assert far <= (0 if plain else 1)
    np.testing.assert_array_equal(found[1], mask[part])


def test_factors_lie_in_their_range():
  record = blocks.record(40, 40)
  settings = Dense(120, scale=(0.5, 2.0), ratio=(0.5, 2.0), **STILL)
  shares = []
  for seed in range(60):
    label = view(settings, record, seed)[1]
    rows, columns = ((label >= 0).any(axis).sum() for axis in (1, 0))
    shares.append((np.sqrt(rows * columns) / 40, columns / rows))
  factor, ratio = np.transpose(shares)
  assert 0.48 <= factor.min() < 0.6 and 1.8 < factor.max() <= 2.02
  assert 0.45 <= ratio.min() < 0.7 and 1.7 < ratio.max() <= 2.2


def test_probabilities_and_angles():
  record = blocks.record(64, 64)
  settings = Dense(64, scale=(1.0, 1.0), **GEOMETRY)
  views = [view(settings, record, seed)[1] for seed in range(80)]
  rotated = [label[0, 0] < 0 for label in views]
  assert 0.35 < np.mean(rotated) < 0.65
  flat = [label for label, turned in zip(views, rotated) if not turned]  # noqa: B905
  mirrored = [(label != record["mask"]).any() for label in flat]
  assert 0.3 < np.mean(mirrored) < 0.7
  for label, flipped in zip(flat, mirrored):  # noqa: B905
    wanted = record["mask"][:, ::-1] if flipped else record["mask"]
    np.testing.assert_array_equal(label, wanted)
  # No angle beyond the largest: the middle of every side stays uncovered.
  steep = dataclasses.replace(settings, rotate=45.0, rotate_prob=1.0, hflip=0.0)
  bare = [(view(s, record, 5)[1] < 0).sum() for s in (settings, steep)]
  assert bare[0] < bare[1]


def test_crops_reach_every_place():
  mask = np.arange(36, dtype=np.int16).reshape(6, 6)
  record = {"image": np.zeros((6, 6, 3), np.uint8), "mask": mask, "id": 0}
  settings = Dense(4, scale=(1.0, 1.0), **STILL)
  seen = {int(view(settings, record, s)[1][0, 0]) for s in range(150)}
  assert seen == {int(mask[i, j]) for i in range(3) for j in range(3)}


def test_blur_changes_images_only():
  record = blocks.record(64, 64)
  settings = Dense(64, scale=(1.0, 1.0), **{**STILL, "blur_prob": 1.0})
  image, label = view(settings, record)
  wanted = cv2.GaussianBlur(record["image"], (5, 5), 0)
  np.testing.assert_array_equal(image, wanted)
  np.testing.assert_array_equal(label, record["mask"])
  assert (image != record["image"]).any()


def test_none_is_the_middle_mirrored_and_moved_if_asked():
  record = blocks.record(40, 52)
  plain = Dense(40, augment="none", hflip=0.0)
  image, label = view(plain, record)
  np.testing.assert_array_equal(image, record["image"][:, 6:46])
  np.testing.assert_array_equal(label, record["mask"][:, 6:46])
  np.testing.assert_array_equal(plain.eval(record), image)
  flipped = view(dataclasses.replace(plain, hflip=1.0), record)
  np.testing.assert_array_equal(flipped[1], label[:, ::-1])
  moving = dataclasses.replace(plain, shift=2)
  places = set()
  for seed in range(120):
    moved = view(moving, record, seed)
    at = next(
      (down, right)
      for down in range(-2, 3)
      for right in range(-2, 3)
      if (
        joint.moved((image, label), down, right, plain.fill)[1] == moved[1]
      ).all()
    )
    rows = slice(max(at[0], 0), 40 + min(at[0], 0))
    back = slice(max(-at[0], 0), 40 + min(-at[0], 0))
    columns = slice(max(at[1], 0), 40 + min(at[1], 0))
    left = slice(max(-at[1], 0), 40 + min(-at[1], 0))
    np.testing.assert_array_equal(moved[0][rows, columns], image[back, left])
    assert (moved[1] < 0).sum() == 1600 - (40 - abs(at[0])) * (40 - abs(at[1]))
    places.add(at)
  assert len(places) == 25
  small = view(Dense(60, augment="none", hflip=0.0), record)
  np.testing.assert_array_equal(small[1][10:50, 4:56], record["mask"])
  assert (small[0][:10] == plain.fill).all() and (small[1][:10] == -1).all()


def take(count, settings, **options):
  options = {"batch_size": 4, "seed": 5, **options}
  with pipeline.train_batches(blocks.Source(), settings, **options) as batches:
    return [next(batches) for _ in range(count)]


def test_batches_hold_label_maps():
  settings = Dense(24)
  batches = take(5, settings)
  for batch in batches:
    assert (batch.image.shape, batch.image.dtype) == ((4, 24, 24, 3), np.uint8)
    assert (batch.label.shape, batch.label.dtype) == ((4, 24, 24), np.int16)
    assert batch.mask.tolist() == [1] * 4 and batch.geometry is None
  for name in ("image", "label"):
    later = getattr(take(1, settings, start_step=3)[0], name)
    np.testing.assert_array_equal(later, getattr(batches[3], name))
    halves = [
      getattr(take(1, settings, process_index=i, process_count=2)[0], name)
      for i in (0, 1)
    ]
    whole = getattr(batches[0], name)
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_fingerprints_tell_settings_apart():
  prints = {Dense(24).fingerprint(), Dense(24, scales=[1.0]).fingerprint()}
  assert len(prints) == 1 and len(prints.pop()) == 16
  assert Dense(24).stated()["image_size"] == 24
  assert Dense(24).fingerprint() != Dense(24, rotate=9.0).fingerprint()


def test_records_without_masks_are_refused():
  with pytest.raises(ValueError, match="record 3 has no mask; .*name=pairs"):
    view(Dense(8), digits.Source()[3])


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"augment": "crop"}, r"augment='crop'; .* \['full', 'none'\]"),
    ({"image_size": 0}, "image_size=0; it must be at least 1"),
    ({"scale": (0.0, 1.0)}, r"scale=\(0.0, 1.0\); it must be 0 < low <= high"),
    ({"ratio": (2.0, 1.0)}, "ratio=.*; it must be 0 < low <= high"),
    ({"rotate": -1.0}, r"rotate=-1.0; it must be in \[0, 180\]"),
    ({"rotate_prob": 1.5}, r"rotate_prob=1.5; it must be in \[0, 1\]"),
    ({"blur_prob": -0.5}, "blur_prob=-0.5"),
    ({"blur_size": 4}, "blur_size=4; it must be odd"),
    ({"photometric": 3.0}, r"photometric=3.0; it must be in \[0, 2\]"),
    ({"hflip": 2.0}, "hflip=2.0"),
    ({"shift": 3}, "shift=3 has no effect with augment='full'.*'none'"),
    ({"shift": 512, "augment": "none"}, r"shift=512; .*\[0, image_size\)"),
    ({"fill": (1, 2)}, "fill=.*; it must be 3 values"),
    ({"long_side": -1}, "long_side=-1; it must be at least 0"),
    ({"scales": ()}, r"scales=\(\); it must be one or more"),
    ({"scales": (1.0, 0.0)}, "scales=.*; it must be one or more"),
    ({"eval_size": (5,)}, r"eval_size=\(5,\); it must be \(\), or height and"),
    ({"label_size": (5, 0)}, "label_size=.*; it must be"),
  ],
)
def test_mistakes(fields, match):
  with pytest.raises(ValueError, match=match):
    Dense(**fields)


def test_what_else_reads_views_finds_it():
  settings = resolve.construct(
    Dense,
    {"image_size": 24, "scale": [0.5, 1.0], "eval_size": []},
    "preprocess",
  )
  assert settings == Dense(24, scale=(0.5, 1.0)) and hash(settings)
  source = blocks.Source()
  with pipeline.eval_batches(source, settings, batch_size=5) as batches:
    images = np.concatenate([batch.image for batch in batches])
  for index, image in enumerate(images):
    np.testing.assert_array_equal(image, settings.eval(source[index]))
  assert images.shape == (10, 24, 24, 3) and np.ptp(images) > 200
  assert cut_of(settings) == Cut(24, "bilinear")
  bank = types.SimpleNamespace(place="bank")
  with pytest.raises(ValueError, match="the bank bank holds .* whole images; "):
    compatibility.check(bank, settings, source)
