"""What networks find alike: nearest neighbours of a few images.

Teacher and student are asked about the same query and gallery images; cosine
similarity of their features decides.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, UInt8

from kd_jax.data import examples
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource, TeacherSource
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.plots import COLORS, INK
from kd_jax.train.views import as_unit
from kd_jax.types import Batch, Variables

Embed = Callable[[UInt8[np.ndarray, "n s s 3"]], Float[np.ndarray, "n d"]]
"""Evaluation views -> features."""

CHUNK = 16
"""Images that an `Embed` gets at a time."""

_GAP, _LINE, _HEAD = 10, 18, 54
_SAME, _OTHER = COLORS[2], COLORS[1]


class Nearest(NamedTuple):
  """Neighbours of every query, nearest first.

  Attributes:
    index: rows of the gallery.
    cosine: their similarity, at most 1.
  """

  index: Int[np.ndarray, "q k"]
  cosine: Float[np.ndarray, "q k"]


@dataclasses.dataclass(frozen=True)
class Images:
  """Evaluation views and what they show.

  Attributes:
    image: the views.
    label: class of each; -1 where it is unknown.
    names: of the classes, if they have any.
  """

  image: UInt8[np.ndarray, "n s s 3"]
  label: Int[np.ndarray, " n"]
  names: tuple[str, ...] = ()

  def name(self, row: int) -> str:
    """The class of a row; '' if it is unknown."""
    return sheet_lib.class_name(int(self.label[row]), self.names, 9)


def nearest(
  queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "n d"], k: int
) -> Nearest:
  """The k gallery rows of the largest cosine similarity to each query."""
  cosine = _unit(queries) @ _unit(gallery).T
  index = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
  return Nearest(index, np.take_along_axis(cosine, index, 1))


def draw(
  queries: DataSource,
  gallery: DataSource,
  preprocess: Views,
  networks: Mapping[str, Embed],
  *,
  count: int,
  most: int = 256,
  seconds: float = 6.0,
) -> bytes:
  """A PNG: a row per query, with its neighbours in every network's eyes.

  Args:
    queries: where query images are drawn from.
    gallery: where they are searched. It may be the same source; then a query
      is not in the gallery.
    preprocess: its `eval` view.
    networks: name -> features, drawn beside each other in this order.
    count: of queries, at most `CHUNK`.
    most: of gallery images.
    seconds: after which no more gallery images are looked at.

  Raises:
    ValueError: an image cannot be decoded.
  """
  count = min(count, CHUNK)
  same = queries.fingerprint == gallery.fingerprint
  rows = _drawn(len(gallery), most + count * same)
  asked = rows[:count] if same else _drawn(len(queries), count)
  searched = rows[count:] if same and len(rows) > count else rows
  few = _joined(list(_stream(queries, preprocess, asked)))
  many, features = _embedded(
    few, _stream(gallery, preprocess, searched), networks, seconds
  )
  k = 4 if len(networks) > 1 else 8
  found = {
    name: nearest(each[: len(few.label)], each[len(few.label) :], k)
    for name, each in features.items()
  }
  return sheet(few, many, found)


def sheet(
  queries: Images, gallery: Images, found: Mapping[str, Nearest]
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


def of_student(
  student: nn.Module, variables: Variables, tap: str = "pooled"
) -> Embed:
  """What a network says, computed on this process's first device."""
  apply = jax.jit(lambda v, x: student.apply(v, as_unit(x), train=False)[tap])
  return _host(functools.partial(apply, _here(variables)))


def of_teacher(
  source: TeacherSource, variables: Variables, tap: str = "feature"
) -> Embed:
  """The same for a teacher that runs."""

  def apply(known: Variables, image: Any) -> Any:
    batch = Batch(
      image=as_unit(image),
      label=jnp.full(len(image), -1),
      mask=jnp.ones(len(image)),
    )
    return source({"teacher": known, "artifact": {}}, batch).taps[tap]

  return _host(functools.partial(jax.jit(apply), _here(variables)))


def _here(variables: Variables) -> Variables:
  return jax.device_put(variables, jax.local_devices()[0])


def _host(apply: Callable[[Any], Any]) -> Embed:
  return lambda image: np.asarray(apply(image)).astype(np.float32)


def _drawn(length: int, count: int) -> list[int]:
  """Different places all over a source, which may be sorted by class."""
  rng = np.random.default_rng(0)
  return rng.choice(length, min(length, count), replace=False).tolist()


def _stream(
  source: DataSource, preprocess: Views, rows: Sequence[int]
) -> Iterator[Images]:
  """Evaluation views in chunks, without images that may be skipped."""
  decoded = examples.Decoded(source)
  names = tuple(source.class_names)
  for start in range(0, len(rows), CHUNK):
    records = map(decoded.readable, rows[start : start + CHUNK])
    kept = [record for record in records if record is not None]
    if kept:
      yield Images(
        np.stack([preprocess.eval(record) for record in kept]),
        np.array([record["label"] for record in kept]),
        names,
      )


def _embedded(
  queries: Images,
  chunks: Iterator[Images],
  networks: Mapping[str, Embed],
  seconds: float,
) -> tuple[Images, dict[str, Float[np.ndarray, "n d"]]]:
  """The gallery, and every network's features of queries and gallery."""
  end = time.monotonic() + seconds
  features = {k: [_padded(embed, queries)] for k, embed in networks.items()}
  gallery: list[Images] = []
  for chunk in chunks:
    gallery.append(chunk)
    for name, embed in networks.items():
      features[name].append(_padded(embed, chunk))
    if time.monotonic() > end:
      break
  found = {name: np.concatenate(parts) for name, parts in features.items()}
  return _joined(gallery), found


def _padded(embed: Embed, images: Images) -> Float[np.ndarray, "n d"]:
  """Features of at most `CHUNK` images; one shape is compiled once."""
  missing = CHUNK - len(images.image)
  fill = ((0, missing), (0, 0), (0, 0), (0, 0))
  return embed(np.pad(images.image, fill))[: len(images.image)]


def _joined(parts: Sequence[Images]) -> Images:
  return Images(
    np.concatenate([part.image for part in parts]),
    np.concatenate([part.label for part in parts]),
    parts[0].names,
  )


def _unit(feature: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  norm = np.linalg.norm(feature, axis=1, keepdims=True)
  return feature / np.maximum(norm, np.finfo(np.float32).tiny)


def _comparable(queries: Images, gallery: Images) -> bool:
  """Whether equal labels mean the same class."""
  known = min(queries.label.min(), gallery.label.min()) >= 0
  return known and queries.names == gallery.names
