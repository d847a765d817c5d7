"""Goldens: torchvision 0.28 and timm 1.0.31 on photos, with Pillow 13.

`rrc*` are cumulative counts of 60000 draws of RandomResizedCrop.get_params,
`eval*` are timm's create_transform(is_training=False), `jitter*` is
torchvision's functional API and `lighting` the transform of the `robustness`
package, before rounding. `fkd_crop` are the crops that FKD's own code replays,
`erase*` cumulative shares of 60000 rectangles of timm's RandomErasing.
"""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from kd_jax.data.augment import crops

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = np.load(FOLDER / "data_views.npz")
FKD = np.load(FOLDER / "fkd_crop.npz")
ERASE = np.load(FOLDER / "data_augment.npz")
EVAL = [(24, 0.875, "bicubic"), (32, 1.0, "bilinear"), (29, 0.95, "bicubic")]
RRC = [
  (61, 97, (0.08, 1.0)),
  (20, 100, (0.3, 1.0)),
  (100, 20, (0.3, 1.0)),
  (64, 64, (0.2, 0.5)),
]
USUAL = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
PHOTO = GOLDEN["image3"]


class Scripted:
  """A generator that returns what it is told."""

  def __init__(self, **values):
    self.values = values

  def permutation(self, count):
    assert count == len(self.values["order"])
    return self.values["order"]

  def uniform(self, low, high):
    value = self.values["factors"].pop(0)
    assert low <= value <= high
    return value

  def normal(self, mean, sigma, count):
    assert (mean, sigma, count) == (0.0, 0.1, 3)
    return self.values["alpha"]


@pytest.mark.parametrize("image", range(5))
@pytest.mark.parametrize("case", range(3))
def test_center_equals_timm(image, case):
  size, crop_pct, interpolation = EVAL[case]
  found = crops.center(
    GOLDEN[f"image{image}"],
    size,
    crop_pct=crop_pct,
    interpolation=interpolation,
  )
  np.testing.assert_array_equal(found, GOLDEN[f"eval{image}_{case}"])


@pytest.mark.parametrize("case", range(4))
def test_random_box_is_distributed_as_in_torchvision(case):
  height, width, scale = RRC[case]
  rng = np.random.default_rng(0)
  draws = np.array(
    [
      crops.random_box(height, width, rng, scale=scale, ratio=(3 / 4, 4 / 3))
      for _ in range(8000)
    ]
  )
  for column, name in enumerate(("top", "left", "height", "width")):
    golden = GOLDEN[f"rrc{case}_{name}"]
    counts = np.bincount(draws[:, column], minlength=len(golden))
    # Kolmogorov-Smirnov: 0.02 has p < 0.01 at this number of draws.
    assert np.abs(counts.cumsum() / 8000 - golden).max() < 0.02, name
  assert (draws[:, 0] + draws[:, 2]).max() <= height
  assert (draws[:, 1] + draws[:, 3]).max() <= width


def test_random_box_area_and_ratio_follow_their_ranges():
  rng = np.random.default_rng(1)
  boxes = [
    crops.random_box(1000, 1000, rng, scale=(0.1, 0.4), ratio=(0.5, 2.0))
    for _ in range(4000)
  ]
  area = np.array([b.height * b.width for b in boxes]) / 1e6
  log_ratio = np.log([b.width / b.height for b in boxes])
  # Every try fits here, so both are exactly uniform.
  for found, low, high in (
    (area, 0.1, 0.4),
    (log_ratio, -np.log(2), np.log(2)),
  ):
    uniform = np.sort((found - low) / (high - low))
    assert np.abs(uniform - np.linspace(0, 1, 4000)).max() < 0.026


@pytest.mark.parametrize(
  ("height", "width", "expected"),
  [
    (10, 100, (0, 43, 10, 13)),
    (100, 10, (43, 0, 13, 10)),
    (50, 60, (0, 0, 50, 60)),
  ],
)
def test_fallback_is_the_central_box(height, width, expected):
  rng = np.random.default_rng(0)
  box = crops.random_box(
    height, width, rng, scale=(3.0, 3.0), ratio=(3 / 4, 4 / 3)
  )
  assert box == expected


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 16), (50, 20), (80, 90)])
def test_crop_and_resize_equal_pil(interpolation, size):
  box = crops.Box(3, 5, 20, 17)
  found = crops.resize(
    crops.crop(GOLDEN["image0"], box), *size, interpolation=interpolation
  )
  image = Image.fromarray(GOLDEN["image0"]).crop((5, 3, 22, 23))
  filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
  expected = image.resize(size[::-1], filters[interpolation])
  np.testing.assert_array_equal(found, expected)


def test_mirror():
  np.testing.assert_array_equal(crops.mirror(PHOTO), PHOTO[:, ::-1])


def test_shift_reaches_every_offset_equally():
  rng = np.random.default_rng(0)
  image = np.arange(1, 26, dtype=np.uint8).reshape(5, 5, 1).repeat(3, 2)
  seen, offsets = {}, {}
  for _ in range(900):
    moved, offset = crops.random_shift(image, rng, 1)
    offsets[moved.tobytes()] = offset
    seen[moved.tobytes()] = seen.get(moved.tobytes(), 0) + 1
  expected = set()
  for down in (-1, 0, 1):
    for right in (-1, 0, 1):
      moved = np.zeros_like(image)
      moved[max(down, 0) : 5 + down, max(right, 0) : 5 + right] = image[
        max(-down, 0) : 5 - down, max(-right, 0) : 5 - right
      ]
      expected.add(moved.tobytes())
      assert offsets[moved.tobytes()] == (down, right)
  assert set(seen) == expected
  assert min(seen.values()) > 60
  np.testing.assert_array_equal(crops.random_shift(image, rng, 0)[0], image)


@pytest.mark.parametrize("case", range(3))
def test_jitter_equals_torchvision(case):
  order = GOLDEN[f"jitter{case}_order"]
  factor = GOLDEN[f"jitter{case}_factor"]
  rng = Scripted(order=order, factors=[factor[i] for i in order])
  found = crops.random_jitter(PHOTO, rng, (0.5, 0.5, 1.0))
  np.testing.assert_array_equal(found, GOLDEN[f"jitter{case}"])


def test_jitter_leaves_out_what_is_zero():
  rng = np.random.default_rng(0)
  flat = np.full((4, 4, 3), 90, np.uint8)
  # Contrast and saturation do not change a uniform gray.
  found = [crops.random_jitter(flat, rng, (0.0, 0.9, 0.9)) for _ in range(5)]
  np.testing.assert_array_equal(found, [flat] * 5)
  bright = [crops.random_jitter(flat, rng, (0.2, 0, 0)) for _ in range(300)]
  means = np.array(bright).mean(axis=(1, 2, 3)) / 90
  assert 0.79 < means.min() < 0.82
  assert 1.18 < means.max() < 1.21


def test_lighting_equals_robustness():
  rng = Scripted(alpha=GOLDEN["lighting_alpha"])
  found = crops.random_lighting(PHOTO, rng, 0.1)
  np.testing.assert_allclose(found, 255 * GOLDEN["lighting"], atol=0.501)
  assert (found != PHOTO).any()


def torchvision_box(height, width, rng, scale, ratio):
  """RandomResizedCrop.get_params, with Python's generator."""
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w = int(round(math.sqrt(area * aspect)))
    h = int(round(math.sqrt(area / aspect)))
    if 0 < w <= width and 0 < h <= height:
      return rng.randint(0, height - h), rng.randint(0, width - w), h, w
  w, h = width, height
  if width / height < min(ratio):
    h = int(round(width / min(ratio)))
  elif width / height > max(ratio):
    w = int(round(height * max(ratio)))
  return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
  ("height", "width", "fallback"),
  [(375, 500, False), (40, 1500, True), (900, 60, True)],
)
def test_random_box_against_torchvisions_algorithm(height, width, fallback):
  rng, other = np.random.default_rng(5), random.Random(6)
  mine, theirs = (
    np.array([draw() for _ in range(4000)], float).T
    for draw in (
      lambda: crops.random_box(height, width, rng, **USUAL),
      lambda: torchvision_box(height, width, other, **USUAL),
    )
  )
  full = min(height, width)
  shares = [np.mean(b[2:].min(axis=0) == full) for b in (mine, theirs)]
  assert abs(shares[0] - shares[1]) < 0.02
  # Nearly no try fits into a panorama.
  assert (shares[0] > 0.9) == fallback
  size = np.array([[height], [width]])
  for top_left, extent in ((mine[:2], mine[2:]), (theirs[:2], theirs[2:])):
    assert (top_left >= 0).all() and (top_left + extent <= size).all()
  for found, expected in (
    (mine[2] * mine[3], theirs[2] * theirs[3]),
    (np.log(mine[3] / mine[2]), np.log(theirs[3] / theirs[2])),
    (mine[0], theirs[0]),
    (mine[1], theirs[1]),
  ):
    assert stats.ks_2samp(found, expected).pvalue > 0.002
  # Given its size, every place of a box is equally likely.
  room = size - mine[2:]
  for start, free in zip(mine[:2], room, strict=True):
    moving = (free > 20) & (np.minimum(mine[2], mine[3]) < full)
    if moving.sum() > 100:
      place = (start[moving] + rng.random(moving.sum())) / (free[moving] + 1)
      assert stats.kstest(place, "uniform").pvalue > 0.01


def photo_crops(count):
  """(crop, PIL's bilinear resize to 64) of photographs, ImageNet's geometry."""
  rng = np.random.default_rng(0)
  for i in range(count):
    image = load_sample_image(("china.jpg", "flower.jpg")[i % 2])
    image = crops.resize(image, 107, 143, interpolation="bicubic")
    cut = crops.crop(image, crops.random_box(107, 143, rng, **USUAL))
    yield cut, crops.resize(cut, 64, 64, interpolation="bilinear")


def test_area_is_near_pils_bilinear():
  apart = [
    np.abs(
      crops.resize(cut, 64, 64, interpolation="area") - expected.astype(int)
    )
    for cut, expected in photo_crops(60)
  ]
  assert np.mean(apart) < 0.7
  assert max(x.mean() for x in apart) < 3
  assert np.max(apart) < 40


@pytest.mark.parametrize(
  ("shape", "bound"),
  [
    ((20, 30), 1),  # enlarged: PIL up to rounding
    ((64, 64), 0),
    ((90, 40), 25),  # one side grows
    ((130, 180), 25),
    ((400, 300), 12),
    ((30, 640), 25),  # a panorama
    ((900, 640), 12),
  ],
)
def test_area_is_antialiased_at_every_factor(shape, bound):
  rng = np.random.default_rng(0)
  noise = rng.normal(128, 30, (*shape, 3)).clip(0, 255).astype(np.uint8)
  found = crops.resize(noise, 64, 64, interpolation="area").astype(float)
  assert found.shape == (64, 64, 3)
  expected = crops.resize(noise, 64, 64, interpolation="bilinear")
  # Noise loses its amplitude with the number of pixels that are averaged.
  factors = np.maximum(np.array(shape) / 64, 1)
  assert found.std() < 1.25 * 30 / math.sqrt(factors.prod())
  assert np.sqrt(np.mean((found - expected) ** 2)) <= bound
  # No part of the image is left out or moved.
  assert abs(found.mean() - noise.mean()) < 0.7


def test_area_keeps_places():
  ramp = np.linspace(0, 255, 500).round().astype(np.uint8)
  image = np.broadcast_to(ramp[None, :, None], (300, 500, 3))
  for cut in (image, image[:, 100:], image[:200, 50:250], image[:, :170]):
    found, expected = (
      crops.resize(cut, 64, 64, interpolation=name).astype(int)
      for name in ("area", "bilinear")
    )
    assert np.abs(found - expected)[:, 2:-2].max() <= 1
    assert np.abs(found - expected).max() <= 2


def test_unknown_interpolation():
  with pytest.raises(ValueError, match="'lanczos'; it must be one of .*'area'"):
    crops.resize(PHOTO, 8, 8, interpolation="lanczos")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_replay_equals_fkd(interpolation):
  found = [
    crops.replay(FKD["image"], coords, flip, 32, interpolation=interpolation)
    for coords, flip in zip(FKD["coords"], FKD["flips"], strict=True)
  ]
  expected = FKD[f"crops_u8_{interpolation}"]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_replay_finds_the_stored_box(kind, monkeypatch):
  monkeypatch.setattr(crops, "crop", lambda image, box: box)
  monkeypatch.setattr(crops, "resize", lambda box, *_, **__: box)
  dtype = {"fp32": np.float32, "fp16": np.float16}[kind]
  for row, (x0, y0, x1, y1) in zip(
    FKD["box_HWijhw"], FKD[f"box_lurd_{kind}"], strict=True
  ):
    height, width = row[:2]
    coords = (row[2:] / np.array([height, width, height, width])).astype(dtype)
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    box = crops.replay(image, coords, False, 224)
    assert box == (y0, x0, y1 - y0, x1 - x0)


def test_replay_keeps_float16_boxes_inside():
  image = np.zeros((3000, 8, 3), np.uint8)
  image[-1] = 255
  # Both are rounded up: 2031.4 + 970.1 is beyond the 3000 rows.
  coords = np.array([0.6769, 0.0, 0.3233, 1.0])
  assert crops.replay(image, coords, False, 8).shape == (8, 8, 3)


@pytest.mark.parametrize(
  "coords",
  [
    (0.5, 0.0, 0.6, 1.0),
    (-0.1, 0.0, 0.5, 0.5),
    (0.1, 0.1, 0.001, 0.5),
    (0.1, float("nan"), 0.5, 0.5),
  ],
)
def test_replay_refuses_what_is_no_box(coords):
  with pytest.raises(ValueError, match="no box inside an image of 97x131"):
    crops.replay(FKD["image"], coords, False, 32)


@pytest.mark.parametrize(("case", "shape"), [(0, (32, 32)), (1, (12, 48))])
def test_erased_rectangles_are_distributed_as_in_timm(case, shape):
  rng = np.random.default_rng(0)
  image = np.zeros((*shape, 3), np.uint8)
  boxes = []
  for _ in range(6000):
    found = crops.random_erase(image, rng, prob=1.0, mode="const")
    rows, columns = (found[..., 0].any(axis=a).nonzero()[0] for a in (1, 0))
    if len(rows):
      boxes.append((rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1))
      assert (found[rows[0], columns[0]] == (124, 116, 104)).all()
  assert abs(1 - len(boxes) / 6000 - ERASE[f"erase{case}_none"]) < 0.002
  assert not image.any()
  for values, name in zip(
    np.array(boxes).T, ("top", "left", "height", "width"), strict=True
  ):
    golden = ERASE[f"erase{case}_{name}"]
    counts = np.bincount(values, minlength=len(golden))
    assert np.abs(counts.cumsum() / len(boxes) - golden).max() < 0.022, name


def test_erasing_with_noise_of_imagenets_statistics():
  rng = np.random.default_rng(0)
  image = np.zeros((200, 200, 3), np.uint8)
  found = crops.random_erase(
    image, rng, prob=1.0, scale=(0.5, 0.5), ratio=(1.0, 1.0), mode="pixel"
  )
  rows, columns = found.any(axis=(1, 2)), found.any(axis=(0, 2))
  noise = found[rows][:, columns] / 255
  assert noise.shape == (141, 141, 3)
  # Clipping to colours moves the moments a little.
  np.testing.assert_allclose(noise.mean(axis=(0, 1)), crops.MEAN, atol=0.01)
  np.testing.assert_allclose(noise.std(axis=(0, 1)), crops.STD, atol=0.015)
  assert abs(np.corrcoef(noise.reshape(-1, 3).T)[0, 1]) < 0.03
  assert len(np.unique(noise)) == 256


def test_erasing_is_by_chance_and_checked():
  rng = np.random.default_rng(0)
  same = [
    crops.random_erase(PHOTO, rng, prob=0.25, mode="const") is PHOTO
    for _ in range(800)
  ]
  assert abs(np.mean(same) - 0.75) < 0.05
  with pytest.raises(ValueError, match="mode='rand'; it must be 'const' or"):
    crops.random_erase(PHOTO, rng, prob=0.25, mode="rand")
