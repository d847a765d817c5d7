"""Geometry and colour augmentations on uint8 RGB arrays.

Sampling follows torchvision, resizing and colours are PIL's own, the
evaluation geometry is timm's. Every random function draws from the NumPy
generator it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
MODES = ("center", "squash")
"""How `center` resizes, as timm calls it; timm's 'border' is not here."""

INTERPOLATIONS = (*FILTERS, "area")
"""What `resize` knows."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values in [0, 1]."""

MEAN_COLOUR = (124, 116, 104)
"""`MEAN` as a colour, with which timm fills what an augmentation uncovers."""

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
  """Resizes, antialiased; the same pixels where the size is right.

  Args:
    image: what to resize.
    height: of the result, pixels.
    width: of the result, pixels.
    interpolation: 'bilinear' and 'bicubic' are PIL's own. 'area' is for speed
      in training, 3 times as fast: it enlarges as bilinear does (1 level off
      PIL), shrinks up to threefold by averaging 2x2 linear samples per pixel,
      and further by averaging areas. On crops of 500x375 photographs to 224 it
      is 0.7 levels of 255 from PIL's bilinear on average and 45 at most, at
      single pixels of sharp edges; without antialiasing it would be 1.6 and 94.

  Raises:
    ValueError: unknown interpolation.
  """
  if interpolation not in INTERPOLATIONS:
    raise ValueError(
      f"interpolation={interpolation!r}; it must be one of "
      f"{sorted(INTERPOLATIONS)}"
    )
  if image.shape[:2] == (height, width):
    return image
  if interpolation == "area":
    return _fast_resize(image, height, width)
  source = Image.fromarray(np.ascontiguousarray(image))
  return np.asarray(source.resize((width, height), FILTERS[interpolation]))


def _fast_resize(image: Pixels, height: int, width: int) -> Pixels:
  h, w = image.shape[:2]
  if h <= height and w <= width:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
  twice = 2 * width, 2 * height
  if h > 3 * height or w > 3 * width:
    # Linear samples would skip pixels. One call must not enlarge any side:
    # OpenCV then stops averaging the other one.
    fit = min(w, twice[0]), min(h, twice[1])
    image = cv2.resize(image, fit, interpolation=cv2.INTER_AREA)
  # Faster than INTER_AREA at once, which is slow unless the factor is whole,
  # and nearer to PIL.
  image = cv2.resize(image, twice, interpolation=cv2.INTER_LINEAR)
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def replay(
  image: Pixels,
  coords: Sequence[float],
  flip: bool,
  size: int,
  *,
  interpolation: str = "bilinear",
) -> Pixels:
  """The crop that a stored label belongs to (FKD, arXiv:2112.01528).

  Args:
    image: the whole image.
    coords: (top / H, left / W, height / H, width / W) as they were stored.
      float32 gives back the very box; float16 may be a pixel off where a side
      has 1024 or more.
    flip: whether the crop was mirrored.
    size: side of the square result, pixels.
    interpolation: as for `resize`; FKD's students use bilinear.

  Raises:
    ValueError: the coordinates are no box inside the image, or an unknown
      interpolation.
  """
  height, width = image.shape[:2]
  top, left, h, w = (float(x) for x in coords)
  bounds = (top * height, left * width, (top + h) * height, (left + w) * width)
  inside = math.isfinite(sum(bounds)) and min(top, left) >= 0
  # Half a unit of float16 for each of the two that are added.
  if not inside or max(top + h, left + w) > 1 + 2**-11:
    raise ValueError(_no_box(coords, image))
  y0, x0, y1, x1 = (round(x) for x in bounds)
  box = Box(y0, x0, min(y1, height) - y0, min(x1, width) - x0)
  if min(box.height, box.width) < 1:
    raise ValueError(_no_box(coords, image))
  pixels = resize(crop(image, box), size, size, interpolation=interpolation)
  return mirror(pixels) if flip else pixels


def _no_box(coords: Sequence[float], image: Pixels) -> str:
  height, width = image.shape[:2]
  return (
    f"coords={[round(float(x), 6) for x in coords]} is no box inside an image "
    f"of {height}x{width}; it must be (top / H, left / W, height / H, "
    "width / W), each in [0, 1], and hold a pixel: was the label stored for "
    "this image?"
  )


def center(
  image: Pixels,
  size: int,
  *,
  crop_pct: float,
  interpolation: str,
  mode: str = "center",
) -> Pixels:
  """The evaluation view of timm: (size, size, 3).

  The short side is resized to floor(size / crop_pct), the long one in
  proportion, and the middle is cut out.

  Args:
    image: the whole of it.
    size: side of the result, pixels.
    crop_pct: see above.
    interpolation: see `resize`.
    mode: one of `MODES`, timm's `crop_mode`. With 'squash' the long side is
      resized to the same length as the short one, whatever the proportions.
  """
  height, width = image.shape[:2]
  short = math.floor(size / crop_pct)
  long = short
  if mode == "center":
    long = int(short * max(height, width) / min(height, width))
  h, w = (short, long) if height <= width else (long, short)
  image = resize(image, h, w, interpolation=interpolation)
  box = Box(round((h - size) / 2), round((w - size) / 2), size, size)
  return crop(image, box)


def mirror(image: Pixels) -> Pixels:
  """Swaps left and right."""
  # 30 times as fast as a NumPy copy of image[:, ::-1].
  return cv2.flip(image, 1)


def random_shift(
  image: Pixels, rng: np.random.Generator, limit: int
) -> tuple[Pixels, tuple[int, int]]:
  """Moves by up to `limit` pixels each way, filling with zeros.

  Returns:
    The image, and by how many pixels it moved down and to the right.
  """
  height, width = image.shape[:2]
  down, right = rng.integers(-limit, limit + 1, size=2).tolist()
  padded = np.pad(image, ((limit, limit), (limit, limit), (0, 0)))
  box = Box(limit - down, limit - right, height, width)
  return crop(padded, box), (down, right)


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


def random_erase(
  image: Pixels,
  rng: np.random.Generator,
  *,
  prob: float,
  scale: tuple[float, float] = (0.02, 1 / 3),
  ratio: tuple[float, float] = (0.3, 1 / 0.3),
  mode: str,
) -> Pixels:
  """Random erasing (arXiv:1708.04896) of one rectangle, sampled as in timm.

  timm erases after normalising, this before: what a model sees is the same up
  to rounding, except that 'pixel' noise is clipped to colours that exist.

  Args:
    image: what to erase a part of; it is not changed.
    rng: source of randomness.
    prob: probability of erasing at all. Also if none of 10 rectangles fits,
      the image is returned as it is.
    scale: range of the area, as a share of the image, uniform.
    ratio: range of height / width, log-uniform.
    mode: 'const' fills with ImageNet's mean colour, 'pixel' draws each value
      from a normal distribution with ImageNet's mean and deviation.

  Raises:
    ValueError: unknown mode.
  """
  if mode not in ("const", "pixel"):
    raise ValueError(f"mode={mode!r}; it must be 'const' or 'pixel'")
  if rng.random() >= prob:
    return image
  height, width = image.shape[:2]
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(low, high))
    h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if h < height and w < width:
      top = int(rng.integers(0, height - h + 1))
      left = int(rng.integers(0, width - w + 1))
      erased = image.copy()
      fill = _noise(rng, h, w) if mode == "pixel" else MEAN_COLOUR
      erased[top : top + h, left : left + w] = fill
      return erased
  return image


def _noise(rng: np.random.Generator, height: int, width: int) -> Pixels:
  noise = rng.standard_normal((height, width, 3), np.float32)
  noise = 255 * (noise * np.array(STD, np.float32) + np.array(MEAN, np.float32))
  return np.clip(np.rint(noise), 0, 255).astype(np.uint8)
