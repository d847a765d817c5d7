"""Goldens: torchvision 0.28 and timm 1.0.31 on photos, with Pillow 13.

`rrc*` are cumulative counts of 60000 draws of RandomResizedCrop.get_params,
`eval*` are timm's create_transform(is_training=False), `jitter*` is
torchvision's functional API and `lighting` the transform of the `robustness`
package, before rounding.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax.data import crops

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "data_views.npz")
EVAL = [(24, 0.875, "bicubic"), (32, 1.0, "bilinear"), (29, 0.95, "bicubic")]
RRC = [
  (61, 97, (0.08, 1.0)),
  (20, 100, (0.3, 1.0)),
  (100, 20, (0.3, 1.0)),
  (64, 64, (0.2, 0.5)),
]
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


def test_flip():
  rng = np.random.default_rng(0)
  mirrored = PHOTO[:, ::-1]
  np.testing.assert_array_equal(crops.random_flip(PHOTO, rng, 1.0), mirrored)
  np.testing.assert_array_equal(crops.random_flip(PHOTO, rng, 0.0), PHOTO)
  flips = [
    (crops.random_flip(PHOTO, rng, 0.25) == mirrored).all() for _ in range(800)
  ]
  assert abs(np.mean(flips) - 0.25) < 0.05


def test_shift_reaches_every_offset_equally():
  rng = np.random.default_rng(0)
  image = np.arange(1, 26, dtype=np.uint8).reshape(5, 5, 1).repeat(3, 2)
  seen = {}
  for _ in range(900):
    moved = crops.random_shift(image, rng, 1)
    seen[moved.tobytes()] = seen.get(moved.tobytes(), 0) + 1
  expected = set()
  for down in (-1, 0, 1):
    for right in (-1, 0, 1):
      moved = np.zeros_like(image)
      moved[max(down, 0) : 5 + down, max(right, 0) : 5 + right] = image[
        max(-down, 0) : 5 - down, max(-right, 0) : 5 - right
      ]
      expected.add(moved.tobytes())
  assert set(seen) == expected
  assert min(seen.values()) > 60
  np.testing.assert_array_equal(crops.random_shift(image, rng, 0), image)


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
