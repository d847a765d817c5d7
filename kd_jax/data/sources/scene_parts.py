"""What scenes are made of: digits and photographs, others in every split.

split        digits of every class                   columns of photographs
train        'train[36:]' of digits.py, 102 to 111   0 to 383
validation   'train[:36]' of digits.py, 36           384 to 511
test         'test' of digits.py, 36                 512 to 639
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from kd_jax.data.augment import crops
from kd_jax.data.formats import shipped
from kd_jax.data.sources import digits


class Part(NamedTuple):
  """What one split may use.

  Attributes:
    number: of its stream of random numbers.
    digits: split of digits.py, of every class by itself.
    left: first column of the photographs.
    right: the column after the last one.
  """

  number: int
  digits: str
  left: int
  right: int


PARTS = {
  "train": Part(0, "train[36:]", 0, 384),
  "validation": Part(1, "train[:36]", 384, 512),
  "test": Part(2, "test", 512, 640),
}

_CUTS = (32, 128)  # least and largest side that is cut out, pixels


@functools.lru_cache
def glyphs(split: str, digit: int) -> UInt8[np.ndarray, "n 8 8"]:
  """All images of one digit in a split of digits.py."""
  found = digits.Source(split, classes=(digit,))
  images = [np.asarray(found[row]["image"]) for row in range(len(found))]
  return np.stack([image[..., 0] for image in images])


@functools.lru_cache(maxsize=1)
def photographs() -> Sequence[UInt8[np.ndarray, "427 640 3"]]:
  """scikit-learn's sample images, a pavilion and a flower."""
  return tuple(map(shipped.photograph, shipped.PHOTOGRAPHS))


def background(
  part: Part, size: int, rng: np.random.Generator
) -> Float32[np.ndarray, "size size 3"]:
  """A square of a photograph, mirrored or not, 0 to 255.

  Args:
    part: says from which columns.
    size: side of the result, pixels.
    rng: source of randomness.
  """
  draws, every = rng.random(5), photographs()
  photo = every[int(len(every) * draws[0])]
  side = _CUTS[0] + int((_CUTS[1] - _CUTS[0] + 1) * draws[1])
  top = int((len(photo) - side + 1) * draws[2])
  left = part.left + int((part.right - part.left - side + 1) * draws[3])
  cut = crops.crop(photo, crops.Box(top, left, side, side))
  image = crops.resize(cut, size, size, interpolation="area")
  image = crops.mirror(image) if draws[4] < 0.5 else image
  return image.astype(np.float32)
