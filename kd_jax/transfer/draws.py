"""Which training images a run of a transfer learns from, and which it leaves.

Held-out images are training images that no search of a learning rate trains
on: rates are chosen by them, never by the test set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from kd_jax.data.chosen import Chosen
from kd_jax.data.sources import subset
from kd_jax.interfaces import DataSource

Rows = Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
  """The training images of a transfer, in two parts.

  Attributes:
    source: all of them.
    pool: places of those that a search trains on.
    held: places of those that it is judged by; none without a search.
    labels: of all images; None if they have masks instead.
  """

  source: DataSource
  pool: Rows
  held: Rows
  labels: Rows | None

  def held_out(self) -> DataSource:
    """The images that rates are chosen by."""
    return Chosen(self.source, self.held)

  def searched(self, shots: int, seed: int) -> DataSource:
    """What a run of a search trains on: a draw of `pool`."""
    return self._drawn(self.pool, shots, seed)

  def trained(self, shots: int, seed: int) -> DataSource:
    """What a run that counts trains on: all images, or a draw of `pool`."""
    every = np.arange(len(self.source))
    return self._drawn(self.pool if shots else every, shots, seed)

  def _drawn(self, rows: Rows, shots: int, seed: int) -> DataSource:
    if not shots:
      return Chosen(self.source, rows)
    if self.labels is None:
      kept = _some(len(rows), shots, seed)
    else:
      kept = self._of_every_class(rows, shots, seed)
    return Chosen(self.source, rows[kept])

  def _of_every_class(self, rows: Rows, shots: int, seed: int) -> Rows:
    assert self.labels is not None
    try:
      return subset.draw(
        len(rows),
        labels=self.labels[rows],
        per_class=shots,
        seed=seed,
        class_names=self.source.class_names,
      )
    except ValueError as error:
      raise ValueError(
        f"transfer.shots={shots}, of images that are not held out: {error}"
      ) from error


def parts(
  source: DataSource, labels: Rows | None, holdout: float, seed: int = 0
) -> Parts:
  """Splits training images at random, of every class alike.

  Args:
    source: the training images.
    labels: of all of them; None splits without regard to classes.
    holdout: share that is held out; of a class, at least one image.
    seed: of the split.

  Raises:
    ValueError: a class without an image, or with too few to hold one out.
  """
  if labels is not None:
    check_classes(labels, source.class_names)
  every = np.arange(len(source))
  if not holdout:
    return Parts(source, every, every[:0], labels)
  groups = [every]
  if labels is not None:
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
  rng = np.random.RandomState(seed)  # its stream is frozen, Generator's not
  held = [_held(group, holdout, rng, source, labels) for group in groups]
  found = np.sort(np.concatenate(held))
  return Parts(source, np.setdiff1d(every, found), found, labels)


def check_classes(labels: Rows, names: Sequence[str]) -> None:
  """Whether every class has a training image.

  Raises:
    ValueError: names those that have none.
  """
  counts = np.bincount(labels[labels >= 0], minlength=len(names))
  empty = [names[i] for i in np.flatnonzero(counts == 0).tolist()]
  if empty:
    raise ValueError(
      f"{len(empty)} of {len(names)} classes have no training image, such as "
      f"{empty[:3]}; nothing can be learnt about them. Take a larger "
      "--config.data.split, or images of fewer classes"
    )


def _held(
  group: Rows,
  holdout: float,
  rng: np.random.RandomState,
  source: DataSource,
  labels: Rows | None,
) -> Rows:
  count = max(round(len(group) * holdout), 1)
  if count >= len(group):
    what = "the data"
    if labels is not None:
      what = f"class {source.class_names[int(labels[group[0]])]!r}"
    raise ValueError(
      f"holdout={holdout} leaves no training image: {what} has {len(group)}. "
      "Lower --config.transfer.holdout, or name one rate only, which needs "
      "no held-out images"
    )
  return rng.permutation(group)[:count]


def _some(count: int, wanted: int, seed: int) -> Rows:
  if wanted > count:
    raise ValueError(
      f"transfer.shots={wanted} is more than the {count} training images that "
      "are not held out; lower it, or transfer.holdout"
    )
  return np.sort(np.random.RandomState(seed).permutation(count)[:wanted])
