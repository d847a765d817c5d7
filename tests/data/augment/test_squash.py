"""The evaluation view that keeps no proportions, as some CLIP weights want."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.augment import crops

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "data_views.npz")
EVAL = [(24, 0.875, "bicubic"), (32, 1.0, "bilinear"), (29, 0.95, "bicubic")]


@pytest.mark.parametrize("image", range(5))
@pytest.mark.parametrize("case", range(3))
def test_squash_equals_timm(image, case):
  """timm's `transforms_imagenet_eval` is these calls of PIL.

  Resize((short, short)), then torchvision's CenterCrop.
  """
  size, crop_pct, interpolation = EVAL[case]
  pixels = GOLDEN[f"image{image}"]
  short = math.floor(size / crop_pct)
  edge = round((short - size) / 2)
  whole = Image.fromarray(pixels).resize(
    (short, short), Image.Resampling[interpolation.upper()]
  )
  want = whole.crop((edge, edge, edge + size, edge + size))
  how = {"crop_pct": crop_pct, "interpolation": interpolation}
  found = crops.center(pixels, size, **how, mode="squash")
  np.testing.assert_array_equal(found, np.asarray(want))
  # A square image has no proportions to lose.
  center = crops.center(pixels, size, **how)
  assert (found != center).any() == (pixels.shape[0] != pixels.shape[1])
