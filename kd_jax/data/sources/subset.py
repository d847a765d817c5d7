"""Which records of a source to keep: a number per class, or a share of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64


def draw(
  count: int,
  *,
  labels: Int[np.ndarray, " n"] | None = None,
  per_class: int = 0,
  percent: float = 100.0,
  seed: int = 0,
  class_names: Sequence[str] = (),
) -> Int64[np.ndarray, " kept"]:
  """Draws records without replacement; the same on every machine.

  Args:
    count: number of records there are.
    labels: (count,) their classes; only `per_class` needs them.
    per_class: keep so many of every class that occurs; 0 keeps all. KDEP's
      10 % of ImageNet is 128.
    percent: keep this share of all records, whatever their labels; 100 keeps
      all. One of `per_class` and `percent` at a time.
    seed: of the draw.
    class_names: what errors call the classes, instead of their numbers.

  Returns:
    Their indices, sorted.

  Raises:
    ValueError: a value is out of range, both shares are asked for, nothing
      would be left, or `per_class` where a record has no label or a class has
      too few.
  """
  _check(count, per_class, percent)
  rng = np.random.RandomState(seed)  # its stream is frozen, Generator's not
  if per_class:
    return _of_every_class(labels, per_class, rng, class_names)
  if percent == 100:
    return np.arange(count, dtype=np.int64)
  kept = round(count * percent / 100)
  return np.sort(rng.permutation(count)[:kept]).astype(np.int64)


def _of_every_class(
  labels: np.ndarray | None,
  count: int,
  rng: np.random.RandomState,
  names: Sequence[str],
) -> np.ndarray:
  if labels is None or not len(labels) or labels.min() < 0:
    raise ValueError(
      f"per_class={count} needs classes, and the records have none, or some "
      "have none; set per_class=0, or percent for a share of all"
    )
  found, sizes = np.unique(labels, return_counts=True)
  small = np.flatnonzero(sizes < count)
  if small.size:
    first = small[0]
    name = names[int(found[first])] if names else int(found[first])
    raise ValueError(
      f"per_class={count} is more than {small.size} classes have, such as "
      f"{name!r} with {sizes[first]} records; lower it to {sizes.min()}"
    )
  groups = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
  drawn = [group[rng.permutation(len(group))[:count]] for group in groups]
  return np.sort(np.concatenate(drawn)).astype(np.int64)


def _check(count: int, per_class: int, percent: float) -> None:
  if per_class < 0:
    raise ValueError(f"per_class={per_class}; it must be at least 0 (all)")
  if not 0 < percent <= 100:
    raise ValueError(
      f"percent={percent}; it must be above 0 and at most 100 (all)"
    )
  if per_class and percent < 100:
    raise ValueError(
      f"per_class={per_class} and percent={percent} both say how many to "
      "keep; set per_class=0 or percent=100"
    )
  if not round(count * percent / 100):
    raise ValueError(
      f"percent={percent} of {count} records is none; raise percent"
    )
