"""What the figures of docs/concepts.md show, and that they are drawn."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks import concepts


def features(rows=300, dim=24):
  """Deviations of 1 / i along directions that are no axes."""
  rng = np.random.default_rng(0)
  rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
  std = 1 / np.arange(1, dim + 1)
  x = rng.standard_normal((rows, dim)) * std @ rotation
  return x.astype(np.float32)


def test_shares_are_those_of_numpy_and_scaling_flattens():
  x = features()
  found = concepts.spectrum(x, 8)
  singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
  np.testing.assert_allclose(
    found.share, singular**2 / (singular**2).sum(), rtol=1e-4
  )
  assert math.isclose(found.share.sum(), 1) and len(found.share) == 24
  np.testing.assert_allclose(
    found.before, singular[:8] / math.sqrt(len(x)), rtol=1e-4
  )
  ratios = [x[0] / x[-1] for x in (found.before, found.after)]
  # The cube root of a ratio, for a distribution that only changes its width.
  np.testing.assert_allclose(ratios[1], ratios[0] ** (1 / 3), rtol=0.1)


def test_bytes_are_those_of_the_page():
  assert list(concepts.bytes_per_crop().values()) == [8192, 1024, 512]


def test_boxes_lie_in_the_photograph_and_views_come_from_them():
  photo = np.zeros((90, 120, 3), np.uint8)
  photo[..., 0], photo[..., 1] = np.arange(120), np.arange(90)[:, None]
  images, geometry = concepts.views(photo)
  assert len(images) == concepts.VIEWS == len({*map(tuple, geometry)})
  for image, (top, left, height, width, *_) in zip(
    images, geometry, strict=True
  ):
    assert 0 <= top < top + height <= 90 and 0 <= left < left + width <= 120
    middle = (left + (width - 1) / 2, top + (height - 1) / 2)
    assert np.allclose(image.mean((0, 1))[:2], middle, atol=1)


def test_compared_taps_are_of_the_networks():
  taps = concepts.tap_shapes("resnet10t")
  assert taps["stage4"] == (7, 7, 512) and taps["stage1"][:2] == (56, 56)
  pairs = concepts.compared()
  assert pairs["KDEP"] == (("feature", "feature"),)
  assert [own for own, _ in pairs["stage-wise"]] == [
    f"stage{k}" for k in (1, 2, 3, 4)
  ]
  assert pairs["ScaleKD"] == (("stage3", "stage3"), ("stage4", "stage4"))
  assert {tap for all_of in pairs.values() for x in all_of for tap in x} <= {
    *taps
  }


@pytest.mark.slow
def test_figures_are_drawn(tmp_path):
  concepts.main(["--steps", "2", "--out", str(tmp_path)])
  for name in ("alignment", "bank", "stages"):
    png = (tmp_path / f"concepts_{name}.png").read_bytes()
    assert 10_000 < len(png) < 150_000
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and min(image.size) > 600
    pixels = np.asarray(image.convert("RGB"))
    # White, with something on it.
    assert (pixels[0] == 255).all() and pixels.std() > 20
