"""How well single images went, so that people can look at the extremes.

Average precision needs many images. One image has an F1: of the detections of
at least some score and the objects, the share that belongs together,
2 right / (detections + objects).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.overlaps import iou
from kd_jax.transfer.average_precision.truth import Truth

LEAST = 0.5
"""Score from which on detections are looked at."""

_HIT = 0.5  # IoU


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
  """Which of the d detections and n images' k objects belong together.

  Attributes:
    truth: the objects.
    said: the detections.
    counted: detections of enough score that are right or wrong; the others
      only overlap an ignored object.
    right: those that hit an object of their class.
    hit: the objects that were.
    least: score from which on detections are looked at.
  """

  truth: Truth
  said: Detections
  counted: Bool[np.ndarray, " d"]
  right: Bool[np.ndarray, " d"]
  hit: Bool[np.ndarray, " k"]
  least: float

  def counts(self, index: int) -> tuple[int, int, int]:
    """Of an image: objects that were hit, all objects, wrong detections."""
    objects, found = self.truth.of(index), self.said.of(index)
    wanted = ~self.truth.ignored[objects]
    wrong = self.counted[found] & ~self.right[found]
    return int(self.hit[objects].sum()), int(wanted.sum()), int(wrong.sum())

  @property
  def f1(self) -> Float[np.ndarray, " n"]:
    """Of every image; NaN where there is nothing and nothing was said."""
    return np.array([_f1(*row) for row in self._table.tolist()])

  def ends(self, count: int) -> tuple[list[int], list[int]]:
    """The best and the worst images; of equal ones those of more objects.

    Args:
      count: of each; fewer, where there are not as many images.
    """
    f1, objects = self.f1, self._table[:, 1]
    order = np.lexsort((-objects, -f1))
    known = order[np.isfinite(f1[order])]
    best = known[:count]
    rest = known[count:]
    worst = rest[np.lexsort((-objects[rest], f1[rest]))][:count]
    return best.tolist(), worst.tolist()

  @property
  def _table(self) -> Int64[np.ndarray, "n 3"]:
    images = range(len(self.truth.sizes))
    return np.array([self.counts(i) for i in images], np.int64).reshape(-1, 3)


def matched(truth: Truth, said: Detections, least: float = LEAST) -> Matched:
  """Gives every detection, by falling score, the best object that is left.

  That is the object of its class and image with the highest IoU, from .5 on.

  Args:
    truth: the objects.
    said: the detections.
    least: score from which on they count.
  """
  counted = said.scores >= least
  right = np.zeros(len(counted), bool)
  hit = np.zeros(len(truth.classes), bool)
  for index in np.unique(said.image[counted]):
    objects, found = truth.of(index), said.of(index)
    overlap = _overlap(truth, said, objects, found)
    ignored = truth.ignored[objects]
    for row in _order(said.scores[found], least):
      free = overlap[row] * ~(hit[objects] | ignored)
      if free.size and free.max() >= _HIT:
        right[found.start + row] = True
        hit[objects.start + int(free.argmax())] = True
      elif (overlap[row][ignored] >= _HIT).any():
        counted[found.start + row] = False
  return Matched(truth, said, counted, right, hit, least)


def _f1(hit: int, objects: int, wrong: int) -> float:
  both = objects + hit + wrong
  return 2 * hit / both if both else np.nan


def _overlap(
  truth: Truth, said: Detections, objects: slice, found: slice
) -> Float[np.ndarray, "d k"]:
  """IoU of an image's detections and objects, 0 if of different classes."""
  same = said.classes[found][:, None] == truth.classes[objects]
  return same * iou(said.boxes[found], truth.boxes[objects])


def _order(scores: Float32[np.ndarray, " d"], least: float) -> list[int]:
  order = np.argsort(-scores, kind="stable")
  return order[scores[order] >= least].tolist()
