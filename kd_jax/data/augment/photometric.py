"""Changes of colour for segmentation, as the KDEP authors' semseg fork does.

SSD's photometric distortion (arXiv:1512.02325) in MMSegmentation's form: values
are cut to whole ones after every change, and hue and saturation are those of
OpenCV's 8-bit HSV.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

Pixels = UInt8[np.ndarray, "h w 3"]

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, 0.5, 0.5, 18
"""Largest changes: levels of 255, shares, shares, steps of 2 degrees."""

NUMBERS = 9
"""How many numbers `draw` reads."""


class Colours(NamedTuple):
  """What happens to the colours of an image; the defaults are nothing.

  Attributes:
    brightness: added to every value, levels of 255.
    contrast: every value is multiplied by it.
    saturation: it is multiplied by this.
    hue: this is added to it, steps of 2 degrees.
    contrast_first: contrast comes before saturation and hue, not after.
  """

  brightness: float = 0.0
  contrast: float = 1.0
  saturation: float = 1.0
  hue: int = 0
  contrast_first: bool = True


def draw(uniform: Float64[np.ndarray, " 9"], strength: float) -> Colours:
  """What numbers in [0, 1) say; each change has the probability 0.5.

  Args:
    uniform: whether and how much of brightness, which order, whether and how
      much of contrast, saturation and hue.
    strength: of the largest changes; 1 is the authors'.
  """
  use = uniform[[0, 3, 5, 7]] < 0.5
  # In [-strength, strength), 0 where there is no change.
  amount = np.where(use, 2 * uniform[[1, 4, 6, 8]] - 1, 0) * strength
  brightness, contrast, saturation, hue = amount.tolist()
  return Colours(
    brightness=BRIGHTNESS * brightness,
    contrast=1 + CONTRAST * contrast,
    saturation=1 + SATURATION * saturation,
    hue=math.floor(HUE * hue),  # -18 to 17, as the authors draw
    contrast_first=bool(uniform[2] < 0.5),
  )


def distort(image: Pixels, colours: Colours) -> Pixels:
  """The image with its colours changed; pixels do not meet."""
  image = _linear(image, 1.0, colours.brightness)
  if colours.contrast_first:
    image = _linear(image, colours.contrast, 0.0)
  if colours.saturation != 1 or colours.hue:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hue, saturation, value = cv2.split(hsv)
    saturation = _linear(saturation, colours.saturation, 0.0)
    turn = (np.arange(256) + colours.hue) % 180
    hue = cv2.LUT(hue, turn.astype(np.uint8))
    image = cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2RGB)
  if not colours.contrast_first:
    image = _linear(image, colours.contrast, 0.0)
  return image


def _linear(
  values: UInt8[np.ndarray, ...], factor: float, offset: float
) -> UInt8[np.ndarray, ...]:
  """Values * factor + offset, without what is behind the point."""
  if factor == 1 and not offset:
    return values
  table = np.arange(256, dtype=np.float32) * factor + offset
  # Only 256 values are possible.
  table = np.clip(table, 0, 255).astype(np.uint8)
  return cv2.LUT(np.ascontiguousarray(values), table)
