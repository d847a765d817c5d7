"""Geometry of an image and its mask together, through OpenCV.

As in the KDEP authors' semseg fork: images are interpolated bilinearly, masks
take the nearest value, so that no label is invented. Where there is nothing,
images get a colour and masks -1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Int16, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Mask = Int16[np.ndarray, "h w"]
Pair = tuple[Image, Mask]
Colour = tuple[int, int, int]


def scaled(pair: Pair, factor_x: float, factor_y: float) -> Pair:
  """Both resized; sides are rounded, and at least 1 pixel."""
  image, mask = pair
  height, width = mask.shape
  x, y = max(factor_x, 1 / width), max(factor_y, 1 / height)
  return (
    cv2.resize(image, None, fx=x, fy=y, interpolation=cv2.INTER_LINEAR),
    cv2.resize(mask, None, fx=x, fy=y, interpolation=cv2.INTER_NEAREST),
  )


def rotated(pair: Pair, degrees: float, fill: Colour) -> Pair:
  """Both turned counter-clockwise about their middle, of the same size."""
  image, mask = pair
  height, width = mask.shape
  matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
  turned = [
    cv2.warpAffine(
      array,
      matrix,
      (width, height),
      flags=flags,
      borderMode=cv2.BORDER_CONSTANT,
      borderValue=value,
    )
    for array, flags, value in (
      (image, cv2.INTER_LINEAR, fill),
      (mask, cv2.INTER_NEAREST, -1),
    )
  ]
  return turned[0], turned[1]


def mirrored(pair: Pair) -> Pair:
  """Both with left and right swapped."""
  return cv2.flip(pair[0], 1), cv2.flip(pair[1], 1)


def cut(pair: Pair, size: int, down: float, right: float) -> Pair:
  """At most (size, size) pixels of both.

  Args:
    pair: image and mask.
    size: of the result; a shorter side stays.
    down: where the window lies, from 0 (at the top) to 1 (at the bottom).
    right: the same from left to right.
  """
  image, mask = pair
  starts = [
    # Every place is as likely as any other if the share is drawn in [0, 1).
    min(math.floor(share * (room + 1)), room)
    for share, length in zip((down, right), mask.shape, strict=True)
    for room in [max(length - size, 0)]
  ]
  rows, columns = (slice(start, start + size) for start in starts)
  return image[rows, columns], mask[rows, columns]


def padded(pair: Pair, size: int, fill: Colour) -> Pair:
  """Both in the middle of (size, size) pixels, if they are smaller."""
  height, width = pair[1].shape
  rest = [max(size - length, 0) for length in (height, width)]
  if not any(rest):
    return pair
  top, left = (length // 2 for length in rest)
  border = (top, rest[0] - top, left, rest[1] - left)
  return bordered(pair, border, fill)


def moved(pair: Pair, down: int, right: int, fill: Colour) -> Pair:
  """Both moved by whole pixels, of the same size."""
  height, width = pair[1].shape
  border = (max(down, 0), max(-down, 0), max(right, 0), max(-right, 0))
  image, mask = bordered(pair, border, fill)
  rows = slice(border[1], border[1] + height)
  columns = slice(border[3], border[3] + width)
  return image[rows, columns], mask[rows, columns]


def bordered(
  pair: Pair, border: tuple[int, int, int, int], fill: Colour
) -> Pair:
  """Both with so many more pixels above, below, to the left and right."""
  image, mask = (
    cv2.copyMakeBorder(array, *border, cv2.BORDER_CONSTANT, value=value)
    for array, value in zip(pair, (fill, -1), strict=True)
  )
  return image, mask
