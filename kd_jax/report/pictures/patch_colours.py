"""The last map of each network in three colours, as DINOv2's authors show it.

The first three principal components of its positions over a few images become
red, green and blue (arXiv:2304.07193, figure 1): what looks alike to a network
has one colour in all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from kd_jax.report.pictures import columns, look
from kd_jax.report.pictures import sheet as sheet_lib

Scores = Float[np.ndarray, "n h w 3"]
"""Principal components of positions, each of variance 1."""

_RANGE = (2, 98)  # Percentiles that become 0 and full intensity.


def draw(looked: look.Looked) -> sheet_lib.Picture:
  """The queries beside the colours of every network, or why there are none.

  Components have no order or sign that two networks share; so the colours of
  those after the first are turned to be as like its as they can be.
  """
  found: dict[str, Scores] = {}
  taps, reasons = [], dict(looked.absent)
  for name, seen in looked.seen.items():
    reason = unfit(seen.maps)
    if reason:
      reasons[name] = reason
      continue
    ((tap, each),) = seen.maps.items()
    scores = components(each)
    first = next(iter(found.values()), None)
    found[name] = scores if first is None else turned(scores, first)
    taps.append(f"{name}'s {tap} ({each.shape[1]} x {each.shape[2]})")
  left_out = columns.missing(reasons)
  if not found:
    return sheet_lib.Picture(None, f"No colours of patches. {left_out}")
  tiles = {name: [*colours(scores)] for name, scores in found.items()}
  png = columns.draw({"image": [*looked.queries.image], **tiles})
  words = (
    "What looks alike to a network has one colour: the first three principal "
    f"components of the {' and the '.join(taps)} as red, green and blue. "
  )
  return sheet_lib.Picture(png, (words + left_out).strip())


def components(maps: Float[np.ndarray, "n h w c"]) -> Scores:
  """The first three over all positions; 0 for those that a map lacks."""
  return together([maps])[0]


def together(maps: Sequence[Float[np.ndarray, "n h w c"]]) -> list[Scores]:
  """The same over the positions of several maps of one network."""
  from sklearn import decomposition  # slow to import

  each = [x.reshape(-1, x.shape[-1]) for x in maps]
  rows = np.concatenate(each).astype(np.float64)
  kept = min(3, *rows.shape)
  # Fixes the signs, too: the largest loading of each is positive.
  fit = decomposition.PCA(kept, random_state=0).fit_transform(rows)
  spread = fit.std(0)
  known = spread > 1e-6 * spread[0]
  scores = np.zeros((len(rows), 3))
  scores[:, :kept][:, known] = fit[:, known] / spread[known]
  ends = np.cumsum([len(x) for x in each])[:-1]
  parts = np.split(scores, ends)
  return [
    part.reshape(*x.shape[:3], 3) for part, x in zip(parts, maps, strict=True)
  ]


def turned(scores: Scores, wanted: Scores) -> Scores:
  """The scores after the rotation or reflection that suits others best.

  Args:
    scores: of a network.
    wanted: of another one on the same images, of any grid.
  """
  return scores @ turn(scores, wanted)


def turn(scores: Scores, wanted: Scores) -> Float[np.ndarray, "3 3"]:
  """That rotation or reflection.

  Args:
    scores: see `turned`.
    wanted: see `turned`.
  """
  import scipy.linalg

  size = scores.shape[2], scores.shape[1]
  resized = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in wanted]
  others = np.stack(resized).reshape(-1, 3)
  found, _ = scipy.linalg.orthogonal_procrustes(scores.reshape(-1, 3), others)
  return found


def colours(scores: Scores) -> Float[np.ndarray, "n h w 3"]:
  """RGB in [0, 1]; a component that is 0 everywhere is grey."""
  return colours_of([scores])[0]


def colours_of(parts: Sequence[Scores]) -> list[Float[np.ndarray, "n h w 3"]]:
  """The same of several, where one colour means one score."""
  rows = np.concatenate([scores.reshape(-1, 3) for scores in parts])
  low, high = np.percentile(rows, _RANGE, axis=0)
  flat = high - low < 1e-9
  wide = np.where(flat, 1, high - low)
  return [
    np.clip(np.where(flat, 0.5, (scores - low) / wide), 0, 1)
    for scores in parts
  ]


def unfit(maps: Mapping[str, Float[np.ndarray, "n h w c"]]) -> str:
  """Why these maps have no colours; '' if they have."""
  if not maps:
    return f"which has no map of {look.POSITIONS} positions or more here"
  each = next(iter(maps.values()))
  if not np.isfinite(each).all():
    return "whose map is not finite"
  if np.ptp(each, axis=(0, 1, 2)).max() < 1e-9:
    return "whose map is the same everywhere"
  return ""
