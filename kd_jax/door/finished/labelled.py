"""Images sorted into a folder per class, and their split in two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_jax.data.sources import subset
from kd_jax.data.sources.folder import Source
from kd_jax.door import photos
from kd_jax.interfaces import DataSource
from kd_jax.transfer import draws

HELD = 0.2
"""Share of every class that is for test where no other folder is."""

_SHOWN = 3  # names in an error


class Split(NamedTuple):
  """Labelled images, of the same classes.

  Attributes:
    train: what may be learnt from.
    test: what counts.
  """

  train: DataSource
  test: DataSource


def split(images: str, val: str, per_class: int, seed: int) -> Split:
  """Training and test images.

  Args:
    images: a folder of class folders.
    val: another one, for test; '': a fifth of every class of `images`, drawn
      at random, at least one.
    per_class: how many of each class will be drawn from the training images; 0
      for all.
    seed: of the split.

  Raises:
    ValueError: the images are not sorted, there are too few, or the folders
      have other classes.
  """
  source = opened("images", images)
  labels = np.asarray(source.all_labels())
  if val:
    found = Split(source, opened("val", val))
    _check_same(*found)
  else:
    _check_two(source, labels)
    parts = draws.parts(source, labels, HELD, seed)
    found = Split(parts.searched(0, seed), parts.held_out())
  _check_enough(found.train, per_class)
  return found


def opened(name: str, place: str) -> Source:
  """The images of a folder with their classes.

  Args:
    name: of the argument, for errors.
    place: the folder.

  Raises:
    ValueError: it is no folder, has no images, or has no two classes.
  """
  photos.opened(place, name)
  source = Source(photos.resolved(place), skip_corrupt=True)
  if source.num_classes:
    return source
  ids = [each.split("/") for each in source.ids()]
  loose = ["/".join(each) for each in ids if len(each) == 1]
  sort = f"sort them into one folder per class, as {place}/cat and {place}/dog"
  if len(loose) == len(ids):
    raise ValueError(f"the {len(ids)} images of {place} are not sorted; {sort}")
  if loose:
    raise ValueError(
      f"{place} has images in class folders and beside them, such as "
      f"{loose[0]}; {sort}"
    )
  raise ValueError(
    f"{place} has one class only, {ids[0][0]!r}; two at least are needed: "
    f"{sort}"
  )


def _check_two(source: Source, labels: np.ndarray) -> None:
  counts = np.bincount(labels, minlength=source.num_classes)
  few = [source.class_names[i] for i in np.flatnonzero(counts < 2)]
  if few:
    raise ValueError(
      f"{len(few)} of {source.num_classes} classes have fewer than 2 images, "
      f"such as {few[:_SHOWN]}: one is needed for test and one to learn from. "
      "Add images, remove these folders, or name a folder for test as val"
    )


def _check_same(train: DataSource, test: DataSource) -> None:
  if tuple(train.class_names) == tuple(test.class_names):
    return
  apart = sorted({*train.class_names} ^ {*test.class_names})
  raise ValueError(
    f"images has {train.num_classes} classes and val {test.num_classes}; they "
    f"must be the same (only in one of them: {apart[:_SHOWN]})"
  )


def _check_enough(train: DataSource, per_class: int) -> None:
  """Whether `per_class` can be drawn, before features are computed."""
  if not per_class:
    return
  labels = np.asarray(train.all_labels())
  few = np.bincount(labels, minlength=train.num_classes)
  if few.min() < per_class:
    name = train.class_names[int(few.argmin())]
    raise ValueError(
      f"per_class is {per_class}, and of {name!r} there are {few.min()} images "
      f"to learn from; lower per_class to {few.min()}, or add images"
    )


def drawn(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
  """Rows of so many images of every class; all for 0.

  Args:
    labels: of the training images that could be read.
    per_class: how many.
    seed: of the draw.

  Raises:
    ValueError: some could not be read, and too few are left.
  """
  if not per_class:
    return np.arange(len(labels))
  return subset.draw(len(labels), labels=labels, per_class=per_class, seed=seed)
