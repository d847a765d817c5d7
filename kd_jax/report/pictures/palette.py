"""A colour per class, the same in every picture: that of PASCAL VOC's masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

_DARK, _LIGHT = 90, 170  # Stripes where a mask is ignored.
_STRIPE = 64  # Of a mask's longer side, so many stripes.


def colours(classes: int) -> UInt8[np.ndarray, "classes 3"]:
  """The first colours of VOC; class 0, its background, is black.

  The bits of a class, three at a time, become the high bits of red, green and
  blue, so that all 256 classes differ.
  """
  index = np.arange(classes)
  found = np.zeros((classes, 3), np.uint8)
  for place in range(8):
    for channel in range(3):
      bit = index >> (3 * place + channel) & 1
      found[:, channel] |= (bit << (7 - place)).astype(np.uint8)
  return found


def painted(
  mask: Int[np.ndarray, "h w"], classes: int
) -> UInt8[np.ndarray, "h w 3"]:
  """A mask in colours; what is ignored (-1) has grey stripes."""
  width = max(max(mask.shape) // _STRIPE, 1)
  rows, columns = np.indices(mask.shape)
  stripe = ((rows + columns) // width % 2 > 0)[..., None]
  ignored = np.where(stripe, _LIGHT, _DARK).astype(np.uint8)
  found = colours(classes)[np.maximum(mask, 0)]
  return np.where((mask < 0)[..., None], ignored, found)
