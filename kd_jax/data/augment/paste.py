"""Pastes grey glyphs in plain colours on photographs."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

_CONTRAST = 60.0  # grey levels of 255 between a glyph and what lies under it
_TRIES = 100  # colours, of which one in seven or more has the contrast


class Pose(NamedTuple):
  """Where a glyph lies.

  Attributes:
    side: of the square that the whole glyph fills, pixels.
    turn: counter-clockwise, degrees.
    x: of its centre from the left edge, pixels.
    y: of its centre from the upper edge, pixels.
  """

  side: float
  turn: float
  x: float
  y: float


def random_pose(
  draws: Float[np.ndarray, " 4"],
  size: int,
  *,
  sides: tuple[float, float],
  rotation: float,
) -> Pose:
  """A pose whose turned square lies within the image, if it fits at all.

  Args:
    draws: uniform in [0, 1): for side, turn, x and y.
    size: side of the image, pixels.
    sides: least and largest side, pixels.
    rotation: largest turn either way, degrees.
  """
  side = sides[0] + draws[0] * (sides[1] - sides[0])
  turn = rotation * (2 * draws[1] - 1)
  angle = math.radians(turn)
  half = side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
  free = max(size - 2 * half, 0.0)
  first = (size - free) / 2
  return Pose(side, turn, first + draws[2] * free, first + draws[3] * free)


def opacity(
  glyph: UInt8[np.ndarray, "k k"], pose: Pose, size: int
) -> Float32[np.ndarray, "size size"]:
  """How much of every pixel of the image the glyph covers, from 0 to 1.

  Args:
    glyph: grey, 0 is transparent. Its brightest pixel becomes opaque.
    pose: where it lies; it should not shrink, as nothing is averaged.
    size: side of the image, pixels.
  """
  step = len(glyph) / pose.side  # pixels of the glyph in one of the image
  angle = math.radians(pose.turn)
  across, down = step * math.cos(angle), step * math.sin(angle)
  # Centres of pixels are at halves.
  x, y, middle = 0.5 - pose.x, 0.5 - pose.y, (len(glyph) - 1) / 2
  back = np.array(
    [
      [across, -down, across * x - down * y + middle],
      [down, across, down * x + across * y + middle],
    ]
  )
  covered = cv2.warpAffine(
    glyph.astype(np.float32),
    back,
    (size, size),
    flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
  )
  return np.clip(covered / covered.max(), 0, 1)


def contrasting(
  under: Float[np.ndarray, " 3"], rng: np.random.Generator
) -> Float[np.ndarray, " 3"]:
  """A random colour, brighter or darker than another one by a clear step.

  Args:
    under: RGB, 0 to 255.
    rng: source of randomness.
  """
  colours = 255 * rng.random((_TRIES, 3))
  distance = np.abs(colours.mean(1) - under.mean())
  clear = distance >= _CONTRAST
  return colours[clear.argmax() if clear.any() else distance.argmax()]


def blend(
  image: Float32[np.ndarray, "s s 3"],
  covered: Float32[np.ndarray, "s s"],
  colour: Float[np.ndarray, " 3"],
) -> Float32[np.ndarray, "s s 3"]:
  """The image with a colour over it."""
  return image + covered[..., None] * (colour.astype(np.float32) - image)


def bounding_box(mask: Bool[np.ndarray, "s s"]) -> tuple[int, int, int, int]:
  """(x0, y0, x1, y1) in pixels around a mask that is not empty.

  The last column and row of the mask are x1 - 1 and y1 - 1.
  """
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def visible(masks: Bool[np.ndarray, "k s s"]) -> Bool[np.ndarray, "k s s"]:
  """What the later ones, which lie above, leave of each mask."""
  above = np.zeros_like(masks)
  above[:-1] = np.logical_or.accumulate(masks[:0:-1])[::-1]
  return masks & ~above
