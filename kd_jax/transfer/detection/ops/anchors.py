"""Anchors: boxes of a few shapes at every position of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def cell(
  sizes: Sequence[float], ratios: Sequence[float]
) -> Float[np.ndarray, "a 4"]:
  """The anchors of one position, around (0, 0).

  Args:
    sizes: roots of areas, pixels.
    ratios: height over width.

  Returns:
    For every size all ratios, in their order.
  """
  size, ratio = np.meshgrid(
    np.asarray(sizes, np.float64), np.asarray(ratios, np.float64), indexing="ij"
  )
  width = np.sqrt(size**2 / ratio).ravel()
  height = ratio.ravel() * width
  return np.stack([-width, -height, width, height], -1) / 2


def grid(
  shape: tuple[int, int], stride: float, cell: Float[np.ndarray, "a 4"]
) -> Float[np.ndarray, "k 4"]:
  """The anchors of a map: constants of the program, float32.

  Args:
    shape: height and width of the map.
    stride: pixels from one position to the next; the first is at (0, 0).
    cell: of one position.

  Returns:
    Positions row by row, all anchors of one before those of the next.
  """
  y, x = np.meshgrid(*(np.arange(n) * stride for n in shape), indexing="ij")
  places = np.stack([x, y, x, y], -1).astype(np.float32)
  every = places[:, :, None] + cell.astype(np.float32)
  return every.reshape(-1, 4)
