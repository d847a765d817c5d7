from __future__ import annotations

import ap_case
import numpy as np
import pytest

from kd_jax.transfer.average_precision import (
  detections,
  files,
  images,
  truth,
)
from kd_jax.transfer.average_precision.found import Found

A, B, C = [0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 70, 70]


def matched(said, *known, **options):
  """`said` is a list of (box, class, score) per image."""
  records = [
    ap_case.record((100, 100), boxes, kinds, ignored)
    for boxes, kinds, ignored in known
  ]
  collected = truth.collect(ap_case.Source(records, "xyz"))
  found = [
    Found(
      index,
      np.array([line[0] for line in each], np.float32).reshape(-1, 4),
      np.array([line[2] for line in each], np.float32),
      np.array([line[1] for line in each], np.int32),
    )
    for index, each in enumerate(said)
  ]
  given = detections.collect(collected, found)
  return images.matched(collected, given, **options)


def test_detections_take_the_best_object_that_is_left():
  near = [1, 0, 10, 10]
  found = matched(
    [
      # Another class, twice the same object, too unsure, and a crowd.
      [(A, 1, 0.9), (near, 0, 0.8), (A, 0, 0.7), (B, 0, 0.4), (C, 0, 0.6)],
    ],
    ([A, B, C], [0, 0, 0], [False, False, True]),
  )
  assert found.right.tolist() == [False, True, False, False, False]
  assert found.counted.tolist() == [True, True, True, False, False]
  assert found.hit.tolist() == [True, False, False]
  assert found.counts(0) == (1, 2, 2)
  assert found.f1.tolist() == [pytest.approx(2 * 1 / (2 + 3))]


def test_a_surer_detection_chooses_first():
  wide = [0, 0, 10, 14]
  found = matched(
    [[(A, 0, 0.6), (wide, 0, 0.7)]], ([A, wide], [0, 0], [False, False])
  )
  assert found.right.all() and found.hit.all()
  found = matched([[(A, 0, 0.3)]], ([A], [0], [False]), least=0.2)
  assert found.right.all() and found.least == 0.2


def test_best_and_worst_images():
  one, two = ([A], [0], [False]), ([A, B], [0, 0], [False, False])
  empty = ([], [], [])
  hit, wrong = (A, 0, 0.9), (C, 0, 0.9)
  found = matched(
    [[hit], [hit, (B, 0, 0.8)], [], [], [wrong], [wrong, wrong], [hit, wrong]],
    *(one, two, empty, one, one, two, one),
  )
  np.testing.assert_allclose(found.f1, [1, 1, np.nan, 0, 0, 0, 2 / 3])
  assert found.ends(2) == ([1, 0], [5, 3])
  assert found.ends(4) == ([1, 0, 6, 5], [3, 4])
  assert found.ends(0) == ([], [])


def test_one_image_agrees_with_counting_by_hand():
  """All scores: what is right at IoU .5 as pycocotools counts it."""
  source, _, known, said = ap_case.judged_case(masks=False)
  found = images.matched(known, said, least=0.0)
  hits, objects, wrong = np.array(
    [found.counts(i) for i in range(len(source))]
  ).T
  assert objects.sum() == known.counts.sum()
  assert hits.sum() == found.right.sum() > 10
  assert (hits + wrong).sum() == found.counted.sum() <= len(said.scores)
  # Greedy by score, ignored objects last: pycocotools' rule, too.
  judge = ap_case.official(source, files.results(known, said), "bbox")
  rows = [e for e in judge.evalImgs if e and e["aRng"][1] == 1e10]
  right = sum(
    ((e["dtMatches"][0] > 0) & ~e["dtIgnore"][0].astype(bool)).sum()
    for e in rows
  )
  assert hits.sum() == right
