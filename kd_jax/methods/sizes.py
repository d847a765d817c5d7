"""A phase at several image sizes, one after the other.

RADIO (arXiv:2312.06709, 2412.07679) trains at a low resolution first, which is
cheap, and at higher ones afterwards; students that have seen one size alone
shift their features at others. Going back and forth at the end keeps both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from kd_jax.types import Phase

Sizes = tuple[tuple[float, int], ...]
"""((share of the steps, side of the student's images in pixels), ...)."""


def check(sizes: Sizes) -> None:
  """Whether these are shares and sizes.

  Raises:
    ValueError: they are not, or the shares do not sum to 1.
  """
  pairs = [pair for pair in sizes if _fits(pair)]
  if len(pairs) < len(sizes):
    raise ValueError(
      f"method.sizes is {sizes}; it holds pairs of a share of the steps and a "
      'side in pixels, such as "((0.7, 224), (0.3, 448))"'
    )
  total = sum(share for share, _ in pairs)
  if sizes and abs(total - 1) > 1e-6:
    raise ValueError(
      f"method.sizes is {sizes}; the shares of the steps must sum to 1, not "
      f"{total:.6g}"
    )


def _fits(pair: object) -> bool:
  if not isinstance(pair, tuple | list) or len(pair) != 2:
    return False
  share, side = pair
  whole = isinstance(side, int) and side >= 1
  return whole and isinstance(share, int | float) and share > 0


def spread(phase: Phase, sizes: Sizes) -> tuple[Phase, ...]:
  """The phase once for every size; optimizer and statistics go on.

  Args:
    phase: all of a method.
    sizes: () leaves it as it is.
  """
  if not sizes:
    return (phase,)
  return tuple(
    dataclasses.replace(
      phase,
      name=f"{phase.name} at {side}",
      steps_frac=share,
      data=(*phase.data, ("image_size", side)),
      fresh_opt=index == 0,
    )
    for index, (share, side) in enumerate(sizes)
  )


def of(phases: Iterable[Phase]) -> tuple[int, ...]:
  """The sizes that phases name, each once, in ascending order."""
  return tuple(
    sorted(
      {
        value
        for phase in phases
        for field, value in phase.data
        if field == "image_size"
      }
    )
  )
