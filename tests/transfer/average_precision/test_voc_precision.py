from __future__ import annotations

import ap_case
import numpy as np
import pytest

from kd_jax.transfer.average_precision import detections, truth, voc
from kd_jax.transfer.average_precision.found import Found


def said_of(known, *images):
  """Of every image a list of (box, score)."""
  found = [
    Found(
      index,
      np.array([box for box, _ in each], np.float32).reshape(-1, 4),
      np.array([score for _, score in each], np.float32),
      np.zeros(len(each), np.int32),
    )
    for index, each in enumerate(images)
  ]
  return detections.collect(known, found)


def test_a_case_computed_by_hand():
  """Three objects and a difficult one; right, wrong, right, wrong."""
  a, b, c = [0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 70, 70]
  hard, nowhere = [0, 60, 20, 80], [80, 0, 95, 15]
  first = ap_case.record((100, 100), [a, b, hard], [0, 0, 0])
  first["difficult"] = np.array([False, False, True])
  second = ap_case.record((100, 100), [c], [0])
  known = truth.collect(ap_case.Source([first, second], ["cat", "ghost"]))
  said = said_of(
    known,
    # The difficult one does not count, and a second hit is wrong.
    [(a, 0.9), (hard, 0.8), (b, 0.6), (a, 0.5), (hard, 0.4)],
    [(nowhere, 0.7)],
  )
  # Precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3.
  found = voc.evaluate(known, said, 11)
  assert found.figures["ap50"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
  found = voc.evaluate(known, said, 0)
  assert found.figures["ap50"] == pytest.approx((1 + 2 / 3) / 3)
  assert np.isnan(found.by_class["ap50"][1])
  assert found.objects.tolist() == [3, 0]
  np.testing.assert_allclose(found.curves[0].recall * 3, [1, 1, 2, 2])
  np.testing.assert_allclose(found.curves[0].precision, [1, 2 / 3, 2 / 3, 0.5])
  np.testing.assert_allclose(found.curves[0].score, [0.9, 0.7, 0.6, 0.5])


def test_overlaps_are_those_of_pixels_counted_from_one():
  """Detectron2 adds 1 to x0 and y0, and 1 to every width."""
  rng = np.random.default_rng(0)
  boxes = rng.integers(0, 30, (200, 4)).astype(float)
  boxes[:, 2:] += boxes[:, :2] + 1
  one, two = boxes[:100], boxes[100:]
  a, b = one + [1, 1, 0, 0], two + [1, 1, 0, 0]
  width = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
  both = np.maximum(width, 0).prod(-1)
  areas = [(x[:, 2:] - x[:, :2] + 1).prod(-1) for x in (a, b)]
  found = np.diag(voc.iou(one, two))
  np.testing.assert_allclose(found, both / (sum(areas) - both), rtol=1e-14)
  assert (found > 0).sum() > 20


def reference(source, found, index, threshold, points):
  """The devkit's loop, in Detectron2's order."""
  lines = [
    (each.scores[row], each.index, each.boxes[row].astype(float))
    for each in found
    for row in np.flatnonzero(each.classes == index)
  ]
  lines.sort(key=lambda line: -line[0])
  taken, tp, fp = set(), [], []
  for _, image, box in lines:
    known = source.records[image]
    rows = np.flatnonzero(known["classes"] == index)
    best, at = -np.inf, None
    for row in rows:
      other = known["boxes"][row].astype(float)
      width = min(box[2], other[2]) - max(box[0], other[0])
      height = min(box[3], other[3]) - max(box[1], other[1])
      both = max(width, 0) * max(height, 0)
      area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (box, other))
      if both / (area - both) > best:
        best, at = both / (area - both), row
    hit = best > threshold
    if hit and known["ignored"][at]:
      right = wrong = False
    else:
      right = hit and (image, at) not in taken
      wrong = not right
      taken |= {(image, at)} if right else set()
    tp.append(right)
    fp.append(wrong)
  npos = sum(
    ((x["classes"] == index) & ~x["ignored"]).sum() for x in source.records
  )
  tp, fp = np.cumsum(tp), np.cumsum(fp)
  recall = tp / npos
  precision = tp / np.maximum(tp + fp, np.finfo(float).eps)
  if points:
    total = 0.0
    for least in np.arange(0.0, 1.1, 0.1):
      reached = precision[recall >= least]
      total += (reached.max() if len(reached) else 0) / 11
    return total
  recall = np.concatenate([[0], recall, [1]])
  precision = np.concatenate([[0], precision, [0]])
  for i in range(len(precision) - 1, 0, -1):
    precision[i - 1] = max(precision[i - 1], precision[i])
  steps = np.flatnonzero(recall[1:] != recall[:-1])
  return ((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum()


@pytest.mark.parametrize("points", [0, 11])
@pytest.mark.parametrize("seed", range(2))
def test_random_detections_equal_the_devkits_loop(seed, points):
  source, found, known, said = ap_case.judged_case(seed, masks=False)
  judged = voc.evaluate(known, said, points)
  table = [
    [reference(source, found, k, t / 100, points) for k in range(3)]
    for t in range(50, 100, 5)
  ]
  np.testing.assert_allclose(judged.by_class["ap50"][:3], table[0])
  np.testing.assert_allclose(judged.by_class["ap75"][:3], table[5])
  assert judged.figures["ap"] == pytest.approx(np.mean(table))
  assert 0.05 < judged.figures["ap"] < judged.figures["ap50"] < 0.9
  assert ("11" in judged.rule) == (points == 11)


def test_nothing_found_is_zero_in_voc():
  _, _, known, _ = ap_case.judged_case()
  said = detections.collect(known, [])
  assert set(voc.evaluate(known, said, 0).figures.values()) == {0.0}
  assert set(voc.evaluate(known, said, 11).figures.values()) == {0.0}
  with pytest.raises(ValueError, match="points=10; VOC 2007 has 11"):
    voc.evaluate(known, said, 10)
