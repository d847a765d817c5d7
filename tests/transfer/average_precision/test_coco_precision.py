from __future__ import annotations

import dataclasses

import ap_case
import numpy as np
import pytest

from kd_jax.transfer.average_precision import (
  coco,
  detections,
  files,
  truth,
)
from kd_jax.transfer.average_precision.found import Found

STATS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
STATS += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_figures_are_those_of_pycocotools(seed, kind, capsys):
  source, _, known, said = ap_case.judged_case(seed)
  entries = list(files.results(known, said))
  judge = ap_case.official(source, entries, coco._TYPES[kind])
  capsys.readouterr()
  found = coco.evaluate(known, said, kind)
  assert capsys.readouterr().out == ""
  before = "mask_" if kind == "masks" else ""
  wanted = {
    before + name: value
    for name, value in zip(STATS, judge.stats, strict=True)
    if value >= 0
  }
  assert found.figures == wanted
  assert 0.05 < found.figures[f"{before}ap"] < 0.8
  # Categories are sorted there.
  order = np.argsort(source.category_ids)
  precision = judge.eval["precision"][:, :, :, 0, 2]
  for column, index in enumerate(order):
    curve, theirs = found.curves[index], precision[0, :, column]
    if theirs.min() < 0:
      assert not len(curve.recall) and not found.objects[index]
      assert np.isnan(found.by_class["ap"][index])
      continue
    np.testing.assert_array_equal(curve.precision, theirs)
    ap = found.by_class["ap"][index]
    np.testing.assert_allclose(ap, precision[:, :, column].mean())
    scores = judge.eval["scores"][0, :, column, 0, 2]
    np.testing.assert_array_equal(curve.score, scores)


def test_perfect_detections_have_one():
  box = [[10, 10, 60, 50], [70, 20, 90, 90]]
  source = ap_case.Source([ap_case.record((100, 100), box, [0, 1])], "ab")
  known = truth.collect(source)
  boxes = np.array(box, np.float32)
  found = Found(0, boxes, np.ones(2, np.float32), np.array([0, 1], np.int32))
  judged = coco.evaluate(known, detections.collect(known, [found]))
  assert judged.figures["ap"] == pytest.approx(1)
  assert "ap_small" not in judged.figures  # no object is
  assert judged.rule == "COCO, boxes" and judged.objects.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_nothing_found_is_zero(kind):
  _, _, known, _ = ap_case.judged_case()
  said = detections.collect(known, [])
  figures = coco.evaluate(known, said, kind).figures
  assert len(figures) >= 8 and not any(figures.values())


def test_masks_have_to_be_there():
  _, found, known, said = ap_case.judged_case(masks=False)
  with pytest.raises(ValueError, match="no masks to judge masks by"):
    coco.evaluate(known, said, "masks")
  _, found, known, _ = ap_case.judged_case()
  bare = detections.collect(
    known, [dataclasses.replace(x, masks=None) for x in found]
  )
  with pytest.raises(ValueError, match="the detections have no masks"):
    coco.evaluate(known, bare, "masks")
  with pytest.raises(ValueError, match=r"kind='mask'; .*\['boxes', 'masks'\]"):
    coco.evaluate(known, bare, "mask")
