"""What networks find alike: nearest neighbours of a few images.

Teacher and student are asked about the same query and gallery images; cosine
similarity of their features decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from kd_jax.report.pictures import columns, look
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.plots import COLORS, INK

_GAP, _LINE, _HEAD = 10, 18, 54
_SAME, _OTHER = COLORS[2], COLORS[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
  """Neighbours of every query, nearest first.

  Attributes:
    index: rows of the gallery.
    cosine: their similarity, at most 1.
  """

  index: Int[np.ndarray, "q k"]
  cosine: Float[np.ndarray, "q k"]


def nearest(
  queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "n d"], k: int
) -> Nearest:
  """The k gallery rows of the largest cosine similarity to each query."""
  cosine = _unit(queries) @ _unit(gallery).T
  index = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
  return Nearest(index, np.take_along_axis(cosine, index, 1))


def draw(looked: look.Looked) -> sheet_lib.Picture:
  """A row per query, with its neighbours in every network's eyes."""
  k = 4 if len(looked.seen) > 1 else 8
  found = {
    name: nearest(seen.feature, looked.features[name], k)
    for name, seen in looked.seen.items()
  }
  png = sheet(looked.queries, looked.gallery, found)
  words = (
    f"Queries on the left; beside each those of {len(looked.gallery.label)} "
    "images whose features are nearest, with the cosine. "
  )
  left_out = columns.missing(looked.absent)
  return sheet_lib.Picture(png, (words + left_out).strip())


def sheet(
  queries: look.Images, gallery: look.Images, found: Mapping[str, Nearest]
) -> bytes:
  """Draws what was found.

  Args:
    queries: one row each.
    gallery: where neighbours are.
    found: network -> neighbours of the queries.
  """
  k = next(iter(found.values())).index.shape[1]
  columns = 1 + k * len(found)
  side = min((sheet_lib.WIDTH - 20 * len(found)) // columns - _GAP, 110)
  height = side + _LINE + _GAP
  page = sheet_lib.Sheet(_HEAD + len(queries.label) * height)
  known = _comparable(queries, gallery)
  title = f"Nearest of {len(gallery.label)} images by cosine of the feature"
  page.text(title, 0, 4, size=13, bold=True)
  page.text("query", 0, 32, bold=True)
  for row in range(len(queries.label)):
    top = _HEAD + row * height
    page.image(queries.image[row], 0, top, side)
    page.text(queries.name(row), side / 2, top + side + 3, center=True)
  for number, (name, nearby) in enumerate(found.items()):
    left = (1 + number * k) * (side + _GAP) + 20 * (number + 1)
    if known:
      hits = gallery.label[nearby.index] == queries.label[:, None]
      name += f": {hits.sum()} of {hits.size} of the same class"
    page.text(name, left, 32, bold=True)
    for (row, rank), index in np.ndenumerate(nearby.index):
      place = (left + rank * (side + _GAP), _HEAD + row * height)
      page.image(gallery.image[index], *place, side)
      words = f"{gallery.name(index)} {nearby.cosine[row, rank]:.2f}".strip()
      below = (place[0] + side / 2, place[1] + side + 3)
      color = INK
      if known:
        hit = queries.label[row] == gallery.label[index]
        color = _SAME if hit else _OTHER
      page.text(words, *below, color=color, center=True)
  return page.png()


def _unit(feature: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  norm = np.linalg.norm(feature, axis=1, keepdims=True)
  return feature / np.maximum(norm, np.finfo(np.float32).tiny)


def _comparable(queries: look.Images, gallery: look.Images) -> bool:
  """Whether equal labels mean the same class."""
  known = min(queries.label.min(), gallery.label.min()) >= 0
  return known and queries.names == gallery.names
