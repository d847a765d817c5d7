"""Average precision by the rules of PASCAL VOC.

They are those of the devkit in the form that Detectron2 has them: detections
of a class go through by falling score, and each is compared with the object of
its image that it overlaps most. The object is hit if their IoU is above the
threshold; the first that hits it is right, the rest is wrong, and whoever hits
a difficult one is neither. Pixels are counted as there: a box from VOC's
pixel x0 to x1 is x1 - x0 + 1 wide, and VOC counts pixels from 1 on. In edges
of boxes, which are what this package has, that is x1 - x0. Scores and boxes
are not rounded, as they are in the files that Detectron2 writes in between.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.judged import Curve, Judged, no_curve
from kd_jax.transfer.average_precision.overlaps import iou
from kd_jax.transfer.average_precision.truth import Truth

Points = Literal[0, 11]

_THRESHOLDS = np.arange(50, 100, 5) / 100
_AT50, _AT75 = 0, 5


class _Hits(NamedTuple):
  """The detections of a class, by falling score."""

  score: Float32[np.ndarray, " d"]
  row: Int[np.ndarray, " d"]  # of the object that is overlapped most, or -1
  overlap: Float[np.ndarray, " d"]
  ignored: Bool[np.ndarray, " d"]  # whether that object is


def evaluate(truth: Truth, said: Detections, points: Points = 11) -> Judged:
  """Mean average precision over the classes that occur.

  Args:
    truth: what there is to find; VOC's difficult objects are ignored.
    said: what was found.
    points: 11 takes the mean of the best precision at recall 0, .1, ... 1
      (VOC 2007), 0 the area below the curve (from 2010 on).

  Returns:
    The figures 'ap50', which VOC is judged by, 'ap75', and 'ap', the mean
    over IoU .5, .55, ... .95.

  Raises:
    ValueError: another number of points.
  """
  if points not in (0, 11):
    raise ValueError(
      f"points={points}; VOC 2007 has 11, and 0 stands for all of them"
    )
  classes = len(truth.names)
  table = np.full((len(_THRESHOLDS), classes), np.nan)
  curves = [no_curve()] * classes
  for index in np.flatnonzero(truth.counts).tolist():
    hits, objects = _hits(truth, said, index), int(truth.counts[index])
    for row, threshold in enumerate(_THRESHOLDS):
      recall, precision, score = _curve(hits, threshold, objects)
      table[row, index] = average(recall, precision, points)
      if row == _AT50:
        best = np.maximum.accumulate(precision[::-1])[::-1]
        curves[index] = Curve(recall, best, score)
  by_class = {
    "ap": table.mean(0),
    "ap50": table[_AT50],
    "ap75": table[_AT75],
  }
  return Judged(
    "VOC, 11 points" if points else "VOC, all points",
    {name: float(np.nanmean(values)) for name, values in by_class.items()},
    by_class,
    truth.counts,
    tuple(curves),
  )


def average(
  recall: Float[np.ndarray, " d"],
  precision: Float[np.ndarray, " d"],
  points: Points,
) -> float:
  """The average precision of a curve, see `evaluate`.

  Args:
    recall: rising.
    precision: at each recall.
    points: 11, or 0 for all.
  """
  if points:
    best = [
      precision[recall >= least].max(initial=0.0)
      for least in np.arange(0.0, 1.1, 0.1)
    ]
    return float(np.sum(best) / points)
  recall = np.concatenate([[0.0], recall])
  best = np.maximum.accumulate(precision[::-1])[::-1]
  return float((np.diff(recall) * best).sum())


def _hits(truth: Truth, said: Detections, index: int) -> _Hits:
  """What each detection of a class overlaps most."""
  wanted = np.flatnonzero(truth.classes == index)
  rows = np.flatnonzero(said.classes == index)
  row, overlap = _most_overlapped(truth, said, wanted, rows)
  order = np.argsort(-said.scores[rows], kind="stable")
  row = row[order]
  ignored = (row >= 0) & truth.ignored[row]
  return _Hits(said.scores[rows][order], row, overlap[order], ignored)


def _most_overlapped(
  truth: Truth,
  said: Detections,
  wanted: Int[np.ndarray, " k"],
  rows: Int[np.ndarray, " d"],
) -> tuple[Int[np.ndarray, " d"], Float[np.ndarray, " d"]]:
  """Of each detection, the object of its image with the largest IoU."""
  best, overlap = np.full(len(rows), -1), np.zeros(len(rows))
  images = np.intersect1d(truth.image[wanted], said.image[rows])
  theirs = _parts(truth.image[wanted], images)
  ours = _parts(said.image[rows], images)
  for here, mine in zip(theirs, ours, strict=True):
    objects = wanted[here]
    found = iou(said.boxes[rows[mine]], truth.boxes[objects])
    best[mine] = objects[found.argmax(1)]
    overlap[mine] = found.max(1)
  return best, overlap


def _parts(
  image: Int32[np.ndarray, " k"], images: Int32[np.ndarray, " n"]
) -> list[slice]:
  """Where each of `images` lies in the sorted `image`."""
  first, last = (np.searchsorted(image, images, s) for s in ("left", "right"))
  return [slice(*pair) for pair in zip(first, last, strict=True)]


def _curve(
  hits: _Hits, threshold: float, objects: int
) -> tuple[
  Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float32[np.ndarray, " d"]
]:
  """Recall, precision and score after each detection that counts."""
  hit = hits.overlap > threshold
  counted = ~(hit & hits.ignored)
  hit, row = hit[counted], hits.row[counted]
  right = np.zeros(len(row), bool)
  candidates = np.flatnonzero(hit)
  # Of those that hit an object, only the first is right.
  right[candidates[np.unique(row[candidates], return_index=True)[1]]] = True
  total = np.cumsum(right)
  number = np.arange(1, len(row) + 1)
  return total / objects, total / number, hits.score[counted]
