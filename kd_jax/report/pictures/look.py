"""What student and teacher make of evaluation images, for pictures of it.

Every network is shown the same images once. Of all of them its feature is kept;
of a few, the queries, also its last map and the last attention over the image.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from kd_jax import trees
from kd_jax.align import maps as maps_lib
from kd_jax.data import examples
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource, TeacherSource
from kd_jax.models.backbone import Backbone
from kd_jax.models.blocks.tokens import transformer
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.train.views import as_unit
from kd_jax.types import Batch, Network, Taps, Variables

CHUNK = 16
"""Images that a `Look` gets at a time."""

POSITIONS = 16
"""A map with fewer is too coarse to be looked at."""

_MAPS = ("final", "stage4", "stage3", "stage2", "stage1")


Maps: TypeAlias = Mapping[str, Float[np.ndarray, "n h w c"]]
"""{tap: its map}."""


class Seen(NamedTuple):
  """What a network makes of some images.

  Attributes:
    feature: a vector each.
    maps: {tap: its map}: the last one of `POSITIONS` or more; {} without any.
    attention: how much its last attention over the image takes from every
      place, mean of the heads; None without one.
  """

  feature: Float[np.ndarray, "n d"]
  maps: Maps = {}
  attention: Float[np.ndarray, "n h w"] | None = None


_Found = tuple[Array, dict[str, Array], Array | None]
"""`Seen`, on the devices."""

Look = Callable[[UInt8[np.ndarray, "n s s 3"], bool], Seen]
"""(evaluation views, whether maps and attention are wanted) -> what is seen."""


@dataclasses.dataclass(frozen=True)
class Images:
  """Evaluation views and what they show.

  Attributes:
    image: the views.
    label: class of each; -1 where it is unknown.
    names: of the classes, if they have any.
    others: network -> the same views as it sees them, where it has a size of
      its own.
  """

  image: UInt8[np.ndarray, "n s s 3"]
  label: Int[np.ndarray, " n"]
  names: tuple[str, ...] = ()
  others: Mapping[str, UInt8[np.ndarray, "n t t 3"]] = dataclasses.field(
    default_factory=dict
  )

  def name(self, row: int) -> str:
    """The class of a row; '' if it is unknown."""
    return sheet_lib.class_name(int(self.label[row]), self.names, 9)


@dataclasses.dataclass(frozen=True)
class Looked:
  """Images, and what every network made of them.

  Attributes:
    queries: a few images.
    gallery: many.
    seen: network -> what it makes of the queries.
    features: network -> its features of the gallery.
    absent: network -> why it was not asked, as a clause: 'which ...'.
  """

  queries: Images
  gallery: Images
  seen: Mapping[str, Seen]
  features: Mapping[str, Float[np.ndarray, "n d"]]
  absent: Mapping[str, str] = dataclasses.field(default_factory=dict)


def collect(
  queries: DataSource,
  gallery: DataSource,
  preprocess: Views,
  networks: Mapping[str, Look],
  *,
  count: int,
  most: int = 256,
  seconds: float = 6.0,
  absent: Mapping[str, str] | None = None,
) -> Looked:
  """Shows images to networks.

  Args:
    queries: where query images are drawn from.
    gallery: where the many are. It may be the same source; then a query is not
      in the gallery.
    preprocess: its `eval` view.
    networks: name -> how it looks.
    count: of queries, at most `CHUNK`.
    most: of gallery images.
    seconds: after which no more gallery images are looked at.
    absent: see `Looked`.

  Raises:
    ValueError: an image cannot be decoded.
  """
  count = min(count, CHUNK)
  same = queries.fingerprint == gallery.fingerprint
  rows = _drawn(len(gallery), most + count * same)
  asked = rows[:count] if same else _drawn(len(queries), count)
  searched = rows[count:] if same and len(rows) > count else rows
  few = _joined(list(_stream(queries, preprocess, asked)))
  end = time.monotonic() + seconds
  seen = {n: _padded(look, few, n, True) for n, look in networks.items()}
  features: dict[str, list[Float[np.ndarray, "n d"]]] = {x: [] for x in seen}
  chunks: list[Images] = []
  for chunk in _stream(gallery, preprocess, searched):
    chunks.append(chunk)
    for name, look in networks.items():
      features[name].append(_padded(look, chunk, name, False).feature)
    if time.monotonic() > end:
      break
  many = {name: np.concatenate(parts) for name, parts in features.items()}
  return Looked(few, _joined(chunks), seen, many, absent or {})


def at_sizes(
  queries: DataSource,
  preprocess: Sequence[Views],
  networks: Mapping[str, Look],
  count: int,
) -> tuple[Images, dict[str, dict[int, Maps]]]:
  """Shows the same images at several sizes to networks.

  Args:
    queries: where images are drawn from.
    preprocess: the `eval` view of every size, ascending.
    networks: name -> how it looks.
    count: of images, at most `CHUNK`.

  Returns:
    The images as the last view has them, and network -> {side of what it saw:
    its maps}.

  Raises:
    ValueError: an image cannot be decoded.
  """
  rows = _drawn(len(queries), min(count, CHUNK))
  found: dict[str, dict[int, Any]] = {name: {} for name in networks}
  shown = None
  for views in preprocess:
    shown = _joined(list(_stream(queries, views, rows)))
    for name, network in networks.items():
      side = shown.others.get(name, shown.image).shape[1]
      if side not in found[name]:
        found[name][side] = _padded(network, shown, name, True).maps
  assert shown is not None
  return shown, found


def of_network(network: Network, variables: Variables, tap: str) -> Look:
  """How a Flax network looks, computed on this process's first device.

  Args:
    network: a backbone.
    variables: its weights.
    tap: which is the feature.
  """

  def apply(known: Variables, image: Array) -> _Found:
    taps, noted = network.apply(
      known, as_unit(image), train=False, mutable=["intermediates"]
    )
    pooled = getattr(network, "global_pool", "") == "token"
    attention = last_attention(noted.get("intermediates", {}), pooled)
    return taps[tap], last_map(taps), attention

  # One program, since compiling it takes longer than a few maps too many.
  run, known = jax.jit(apply), _here(variables)
  return lambda image, whole: _host(run(known, image), whole)


def of_teacher(source: TeacherSource, variables: Variables) -> Look:
  """The same for a teacher that runs; only Flax networks show attention."""
  if isinstance(source.network, Backbone):
    return of_network(source.network, variables, "feature")

  def apply(known: Variables, image: Array, whole: bool) -> _Found:
    batch = Batch(
      image=as_unit(image),
      label=jnp.full(len(image), -1),
      mask=jnp.ones(len(image)),
    )
    taps = source({"teacher": known, "artifact": {}}, batch).taps
    return taps["feature"], last_map(taps) if whole else {}, None

  run, known = jax.jit(apply, static_argnums=2), _here(variables)
  return lambda image, whole: _host(run(known, image, whole), whole)


def last_map(taps: Taps) -> dict[str, Float[Array, "n h w c"]]:
  """{tap: the last map of `POSITIONS` or more, prefix tokens left out}."""
  for name in _MAPS:
    if name in taps:
      found = maps_lib.as_map(taps[name])
      if math.prod(found.shape[1:3]) >= POSITIONS:
        return {name: found}
  return {}


def last_attention(
  noted: Mapping[str, Any], pooled: bool
) -> Float[Array, "n h w"] | None:
  """What the last attention over the image takes from every place.

  Args:
    noted: 'intermediates', see `transformer.attend`, in the order of the calls.
    pooled: whether the first query is what the network pools; else what all
      patches ask for is averaged.

  Returns:
    The mean of the heads; None without an attention that ends the network.
  """
  found = [
    each
    for path, each in trees.flatten(noted).items()
    if path.rpartition("/")[2] == transformer.ATTENTION
  ]
  if not found:
    return None
  weights = jnp.mean(found[-1][-1].astype(jnp.float32), 1)
  keys = weights.shape[2]
  side = math.isqrt(keys)
  first = slice(0, 1) if pooled else slice(keys - side * side, None)
  asked = weights if weights.shape[1] == 1 else weights[:, first]
  places = asked.mean(1)[:, keys - side * side :]
  return places.reshape(-1, side, side)


def _here(variables: Variables) -> Variables:
  return jax.device_put(variables, jax.local_devices()[0])


def _host(found: _Found, whole: bool) -> Seen:
  wanted = found if whole else (found[0], {}, None)
  return Seen(*jax.tree.map(lambda x: np.asarray(x).astype(np.float32), wanted))


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
        _stacked([preprocess.others(record) for record in kept]),
      )


def _stacked(
  views: Sequence[Mapping[str, UInt8[np.ndarray, "t t 3"]]],
) -> dict[str, UInt8[np.ndarray, "n t t 3"]]:
  return {name: np.stack([v[name] for v in views]) for name in views[0]}


def _padded(look: Look, images: Images, name: str, whole: bool) -> Seen:
  """Of at most `CHUNK` images; one shape is compiled once."""
  shown = images.others.get(name, images.image)
  fill = ((0, CHUNK - len(shown)), (0, 0), (0, 0), (0, 0))
  seen = look(np.pad(shown, fill), whole)
  return jax.tree.map(lambda x: x[: len(shown)], seen)


def _joined(parts: Sequence[Images]) -> Images:
  return Images(
    np.concatenate([part.image for part in parts]),
    np.concatenate([part.label for part in parts]),
    parts[0].names,
    {
      name: np.concatenate([part.others[name] for part in parts])
      for name in parts[0].others
    },
  )
