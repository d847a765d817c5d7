from __future__ import annotations

import json

import ap_case
import numpy as np
import pytest

from kd_jax.data.formats.objects import runs
from kd_jax.transfer.average_precision import (
  detections,
  files,
  rle,
  truth,
)
from kd_jax.transfer.average_precision import found as found_lib
from kd_jax.transfer.average_precision.found import Found
from kd_jax.transfer.average_precision.paste import paste


def test_boxes_return_to_the_pixels_of_their_image():
  taps = {
    "boxes": np.array(
      [
        [[20, 30, 60, 90], [70, 10, 300, 400], [0, 0, 0, 0]],
        [[1, 1, 2, 2]] * 3,
        # What lies beyond the image is nothing there.
        [[8, 4, 16, 8], [90, 2, 95, 3], [2, 2, 4, 2]],
      ],
      np.float32,
    ),
    "scores": np.array([[0.9, 0.8, 0], [1, 1, 1], [0.7, 0.6, 0.5]], np.float32),
    "classes": np.array([[1, 0, -1], [0, 0, 0], [2, 2, 2]], np.int32),
    "masks": np.arange(9, dtype=np.float32)[:, None, None].reshape(3, 3, 1, 1),
  }
  scale = np.array([[2, 3], [1, 1], [0.5, 0.5]], np.float32)
  sizes = np.array([[100, 120], [5, 5], [40, 50]])
  index = np.array([7, -1, 3])
  first, second = found_lib.originals(taps, index, scale, sizes)
  assert (first.index, second.index) == (7, 3)
  np.testing.assert_allclose(
    first.boxes, [[10, 10, 30, 30], [35, 10 / 3, 120, 100]]
  )
  assert first.classes.tolist() == [1, 0]
  assert first.masks.ravel().tolist() == [0, 1]
  np.testing.assert_array_equal(second.boxes, [[16, 8, 32, 16]])
  assert second.scores.tolist() == [np.float32(0.7)]
  assert second.masks.ravel().tolist() == [6]
  del taps["masks"]
  assert found_lib.originals(taps, index, scale, sizes)[0].masks is None


def test_detections_lie_image_by_image_with_their_masks():
  _, found, known, said = ap_case.judged_case()
  assert (np.diff(said.image) >= 0).all()
  for each in found:
    rows = said.of(each.index)
    np.testing.assert_array_equal(said.boxes[rows], each.boxes)
    np.testing.assert_array_equal(said.scores[rows], each.scores)
    size = known.size(each.index)
    for run, mask, box in zip(
      said.masks[rows], each.masks, each.boxes, strict=True
    ):
      pasted = paste(mask, box, size)
      np.testing.assert_array_equal(runs.decode(run, size), pasted)
      assert rle.area(run, size) == pasted.sum()


def test_the_truth_is_that_of_the_source():
  source, _, known, _ = ap_case.judged_case()
  for index, record in enumerate(source.records):
    rows = known.of(index)
    np.testing.assert_array_equal(known.boxes[rows], record["boxes"])
    np.testing.assert_array_equal(known.ignored[rows], record["ignored"])
    for run, mask in zip(known.masks[rows], record["masks"], strict=True):
      np.testing.assert_array_equal(runs.decode(run, record["size"]), mask)
  assert known.image_ids == tuple(source.image_ids.tolist())
  assert known.category_ids == tuple(source.category_ids)
  part = truth.collect(source, 3)
  assert len(part.sizes) == 3 and part.image.max() == 2
  bare = ap_case.Source(source.records, source.box_names)
  assert truth.collect(bare, 2).image_ids == (0, 1)


def test_a_results_file_is_read_by_pycocotools(tmp_path):
  source, _, known, said = ap_case.judged_case()
  path = files.save(known, said, tmp_path)
  assert path.name == "detections.json" and len(list(tmp_path.iterdir())) == 1
  entries = json.loads(path.read_text())
  assert entries == list(files.results(known, said))
  first, box = entries[0], said.boxes[0].astype(float)
  assert first["image_id"] == source.image_ids[said.image[0]]
  assert first["category_id"] == source.category_ids[said.classes[0]]
  assert first["bbox"] == [*box[:2], *(box[2:] - box[:2])]
  assert ap_case.official(source, entries, "segm").stats[0] > 0.05
  files.save(known, detections.collect(known, []), tmp_path)
  assert json.loads(path.read_text()) == []


def found_of(index=0, box=(1, 1, 5, 5), score=0.5, kind=0, masks=None):
  return Found(
    index,
    np.array([box], np.float32),
    np.array([score], np.float32),
    np.array([kind], np.int32),
    masks,
  )


@pytest.mark.parametrize(
  ("found", "words"),
  [
    ([found_of(2)], "of image 2, and the truth has images 0 to 1; .*limit"),
    ([found_of(), found_of()], "image 0 has detections twice"),
    ([found_of(box=(1, 1, np.nan, 5))], "image 0 are not finite.*lr"),
    ([found_of(score=np.inf)], "not finite"),
    ([found_of(kind=3)], r"classes \[3\], and the truth knows 0 to 0"),
    ([found_of(kind=-1)], r"classes \[-1\]"),
    ([found_of(masks=np.ones((1, 7, 7))), found_of(1)], "1 of 2 images have"),
  ],
)
def test_detections_that_cannot_be_judged(found, words):
  record = ap_case.record((10, 10), [[1, 1, 5, 5]], [0])
  known = truth.collect(ap_case.Source([record, record], ["cat"]))
  with pytest.raises(ValueError, match=words):
    detections.collect(known, found)


def test_a_truth_without_objects_is_refused():
  with pytest.raises(ValueError, match="needs boxes, and the test data has"):
    truth.collect(ap_case.Source([], []))
  empty = ap_case.record((10, 10), [], [])
  crowd = ap_case.record((10, 10), [[1, 1, 5, 5]], [0], [True])
  with pytest.raises(ValueError, match="none of the 2 test images has an"):
    truth.collect(ap_case.Source([empty, crowd], ["cat"]))
  twice = ap_case.Source([crowd, crowd], ["cat"], image_ids=[4, 4])
  with pytest.raises(ValueError, match="image_ids of the test data are 1 diff"):
    truth.collect(twice)
