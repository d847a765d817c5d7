"""Masks of boxes laid into their image.

A mask of s x s probabilities stretches over its box; pixels of the image are
looked up at their centres by bilinear interpolation, and outside of the mask
all is 0, as `paste_masks_in_image` of Detectron2 does it.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from kd_jax.transfer.average_precision import rle

_LEAST = 0.5  # Probability from which on a pixel belongs to the object.


def paste(
  mask: Float[np.ndarray, "s s"],
  box: Float[np.ndarray, " 4"],
  size: rle.Size,
) -> Bool[np.ndarray, "h w"]:
  """Where in the image the mask is at least .5.

  Args:
    mask: probabilities; rows stretch from y0 to y1 of the box.
    box: (x0, y0, x1, y1) in pixels of the image, with an extent.
    size: height and width of the image.
  """
  found = np.zeros(size, bool, order="F")  # as run lengths want it
  x0, y0, x1, y1 = (float(side) for side in box)
  rows, columns = _inside(y0, y1, size[0]), _inside(x0, x1, size[1])
  samples = np.pad(mask.astype(np.float64), 1)
  tall = _between(samples, _places(rows, y0, y1, len(mask)))
  both = _between(tall.T, _places(columns, x0, x1, len(mask)))
  found[rows.start : rows.stop, columns.start : columns.stop] = both.T >= _LEAST
  return found


def _inside(low: float, high: float, length: int) -> range:
  """The pixels whose centres the box holds; the rest is below .5."""
  first = max(math.ceil(low - 0.5), 0)
  return range(first, max(min(math.floor(high - 0.5) + 1, length), first))


def _places(
  pixels: range, low: float, high: float, side: int
) -> Float[np.ndarray, " m"]:
  """Where on the padded mask the centres of pixels lie, in samples."""
  centres = np.arange(pixels.start, pixels.stop) + 0.5
  return (centres - low) / (high - low) * side + 0.5


def _between(
  rows: Float[np.ndarray, "p n"], places: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m n"]:
  """Rows between rows; exact where two neighbours are equal."""
  before: Int[np.ndarray, " m"] = places.astype(int)
  rows = np.ascontiguousarray(rows)
  # The last place may be the last row itself, by rounding.
  step = np.diff(rows, axis=0, append=rows[-1:])
  found = step[before]
  found *= (places - before)[:, None]
  found += rows[before]
  return found
