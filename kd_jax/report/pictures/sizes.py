"""Patches of the same images at several sizes, in the same colours.

The principal components of a network are fitted over all sizes together: where
its features shift with the size of an image, as RADIO's authors found
(arXiv:2412.07679, "mode switching"), the colours do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float

from kd_jax.report.pictures import columns, look, patch_colours
from kd_jax.report.pictures import sheet as sheet_lib

Maps: TypeAlias = Mapping[int, look.Maps]
"""{side of the image: {tap: map}} of a network."""

_ROWS = 4


def draw(images: look.Images, seen: Mapping[str, Maps]) -> sheet_lib.Picture:
  """The images beside every network's patches at every size.

  Args:
    images: at one size.
    seen: network -> its maps of them.
  """
  tiles: dict[str, list[sheet_lib.Pixels]] = {"image": [*images.image[:_ROWS]]}
  reasons, words = {}, []
  first: patch_colours.Scores | None = None
  for name, found in seen.items():
    reasons[name] = _unfit(found)
    if reasons[name]:
      continue
    maps = {side: next(iter(x.values()))[:_ROWS] for side, x in found.items()}
    scores = patch_colours.together([*maps.values()])
    if first is None:
      first = scores[0]
    turn = patch_colours.turn(scores[0], first)
    shown = patch_colours.colours_of([x @ turn for x in scores])
    for side, each in zip(maps, shown, strict=True):
      tiles[f"{name}, {side}"] = [*each]
    words.append(_words(name, maps))
  left_out = columns.missing({k: v for k, v in reasons.items() if v})
  if len(tiles) == 1:
    return sheet_lib.Picture(None, f"No patches at several sizes. {left_out}")
  text = (
    "Patches of the same images at several sizes (pixels); a network's colours "
    f"mean the same at all of them. {' '.join(words)} {left_out}"
  )
  return sheet_lib.Picture(columns.draw(tiles, halves=1), text.strip())


def likeness(
  small: Float[np.ndarray, "n h w c"], large: Float[np.ndarray, "n y x c"]
) -> float:
  """Mean cosine of two maps of the same images about the first one's mean.

  Args:
    small: the smaller grid.
    large: averaged down to it.
  """
  size = small.shape[2], small.shape[1]
  few = [_resized(each, size) for each in large]
  mean = small.mean((0, 1, 2))
  one, two = small - mean, np.stack(few) - mean
  norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
  return float(((one * two).sum(-1) / np.maximum(norms, 1e-12)).mean())


def _resized(
  x: Float[np.ndarray, "h w c"], size: tuple[int, int]
) -> Float[np.ndarray, "y x c"]:
  """One channel after the other: OpenCV takes few at a time."""
  planes = [
    cv2.resize(np.ascontiguousarray(x[..., k]), size, None, 0, 0, _AREA)
    for k in range(x.shape[-1])
  ]
  return np.stack(planes, -1)


_AREA = cv2.INTER_AREA


def _words(name: str, maps: Mapping[int, Float[np.ndarray, "n h w c"]]) -> str:
  """How like the smallest size the others are."""
  least, *others = maps
  if not others:
    return f"The {name} always sees {least}."
  parts = [f"{likeness(maps[least], maps[x]):.2f} at {x}" for x in others]
  return f"Cosine with the {name}'s patches at {least}: {', '.join(parts)}."


def _unfit(found: Maps) -> str:
  """Why these maps cannot be shown together; '' if they can."""
  taps = {tap for maps in found.values() for tap in maps}
  if len(taps) != 1 or not all(found.values()):
    return f"which has no map of {look.POSITIONS} positions at every size"
  for maps in found.values():
    reason = patch_colours.unfit(maps)
    if reason:
      return reason
  return ""
