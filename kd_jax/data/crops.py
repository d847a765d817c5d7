"""Geometry and colour augmentations on uint8 RGB arrays.

Sampling follows torchvision, resizing and colours are PIL's own, the
evaluation geometry is timm's. Every random function draws from the NumPy
generator it is given.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

Pixels = UInt8[np.ndarray, "h w 3"]

FILTERS = {
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
}

# AlexNet's PCA of ImageNet's RGB values in [0, 1] (Krizhevsky et al., 2012).
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
  [
    [-0.5675, 0.7192, 0.4009],
    [-0.5808, -0.0045, -0.8140],
    [-0.5836, -0.6948, 0.4203],
  ]
)


class Box(NamedTuple):
  """A rectangle in pixels of the image it is cut from."""

  top: int
  left: int
  height: int
  width: int


def random_box(
  height: int,
  width: int,
  rng: np.random.Generator,
  *,
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> Box:
  """Samples a box as torchvision's RandomResizedCrop does.

  Args:
    height: of the image, pixels.
    width: of the image, pixels.
    rng: source of randomness.
    scale: range of the area, as a share of the image, uniform.
    ratio: range of width / height, log-uniform.

  Returns:
    The first of 10 tries that fits, else the largest centred box whose aspect
    ratio lies within `ratio`.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = int(rng.integers(0, height - h + 1))
      left = int(rng.integers(0, width - w + 1))
      return Box(top, left, h, w)
  h, w = height, width
  if width / height < ratio[0]:
    h = round(width / ratio[0])
  elif width / height > ratio[1]:
    w = round(height * ratio[1])
  return Box((height - h) // 2, (width - w) // 2, h, w)


def crop(image: Pixels, box: Box) -> Pixels:
  """The part of `image` inside `box`."""
  rows = slice(box.top, box.top + box.height)
  return image[rows, box.left : box.left + box.width]


def resize(
  image: Pixels, height: int, width: int, *, interpolation: str
) -> Pixels:
  """PIL's antialiased resize; the same pixels where the size is right."""
  if image.shape[:2] == (height, width):
    return image
  source = Image.fromarray(np.ascontiguousarray(image))
  return np.asarray(source.resize((width, height), FILTERS[interpolation]))


def center(
  image: Pixels, size: int, *, crop_pct: float, interpolation: str
) -> Pixels:
  """The evaluation view of timm: (size, size, 3).

  The short side is resized to floor(size / crop_pct), the long one in
  proportion, and the middle is cut out.
  """
  height, width = image.shape[:2]
  short = math.floor(size / crop_pct)
  long = int(short * max(height, width) / min(height, width))
  h, w = (short, long) if height <= width else (long, short)
  image = resize(image, h, w, interpolation=interpolation)
  box = Box(round((h - size) / 2), round((w - size) / 2), size, size)
  return crop(image, box)


def random_flip(image: Pixels, rng: np.random.Generator, prob: float) -> Pixels:
  """Mirrors left and right with probability `prob`."""
  # cv2.flip is 30 times as fast as a NumPy copy of image[:, ::-1].
  return cv2.flip(image, 1) if rng.random() < prob else image


def random_shift(image: Pixels, rng: np.random.Generator, limit: int) -> Pixels:
  """Moves by up to `limit` pixels each way, filling with zeros."""
  height, width = image.shape[:2]
  down, right = rng.integers(-limit, limit + 1, size=2)
  padded = np.pad(image, ((limit, limit), (limit, limit), (0, 0)))
  return crop(padded, Box(limit - down, limit - right, height, width))


def random_jitter(
  image: Pixels,
  rng: np.random.Generator,
  strength: tuple[float, float, float],
) -> Pixels:
  """ColorJitter of torchvision: brightness, contrast and saturation.

  Each factor is uniform in [max(0, 1 - s), 1 + s]; the order is random.
  """
  enhancers = (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
  )
  result = Image.fromarray(np.ascontiguousarray(image))
  for i in rng.permutation(3):
    s = strength[i]
    factor = rng.uniform(max(0.0, 1 - s), 1 + s)
    result = enhancers[i](result).enhance(factor) if s else result
  return np.asarray(result)


def random_lighting(
  image: Pixels, rng: np.random.Generator, sigma: float
) -> Pixels:
  """AlexNet's PCA noise: one colour added to all pixels, N(0, sigma) wide."""
  weights = rng.normal(0.0, sigma, 3) * _EIGENVALUES
  colour = 255 * (_EIGENVECTORS @ weights)
  # Only 256 values are possible, so a table does the rounding once.
  table = np.clip(np.rint(np.arange(256)[:, None] + colour), 0, 255)
  return cv2.LUT(np.ascontiguousarray(image), table.astype(np.uint8)[None])
