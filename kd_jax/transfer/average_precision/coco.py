"""Average precision by the rules of COCO, computed by pycocotools.

Classes are judged one after the other, so that only the objects of one class
lie in memory the way pycocotools wants them (a dict each). Classes do not
depend on each other, and images without a class do not change it, so all
figures are those of one evaluation of everything.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pycocotools import coco, cocoeval

from kd_jax.transfer.average_precision import rle
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.judged import Curve, Judged, no_curve
from kd_jax.transfer.average_precision.truth import Ids, Truth

Kind = Literal["boxes", "masks"]

_NAMES = (
  *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
  *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
"""What `COCOeval.summarize` computes, in its order."""

_TYPES: Mapping[str, Literal["bbox", "segm"]] = {
  "boxes": "bbox",
  "masks": "segm",
}
_ALL, _MOST = 0, 2  # All sizes; 100 detections per image.
_AT50, _AT75 = 0, 5  # Of the thresholds .5, .55, ... .95.

Annotation = dict[str, Any]


class _Tables(NamedTuple):
  """What `COCOeval.accumulate` fills; -1 where there is no object."""

  precision: Float[np.ndarray, "t r classes a m"]
  recall: Float[np.ndarray, "t classes a m"]
  scores: Float[np.ndarray, "t r classes a m"]


def evaluate(truth: Truth, said: Detections, kind: Kind = "boxes") -> Judged:
  """Average precision over IoU .5 to .95, and its relatives.

  At most 100 detections of an image and class count, those of the highest
  scores. A detection is small, medium or large by its box, or its mask.

  Args:
    truth: what there is to find.
    said: what was found.
    kind: what overlaps are measured of.

  Returns:
    The figures 'ap', 'ap50', 'ap75', 'ap_small' (below 32^2 pixels),
    'ap_medium', 'ap_large' (above 96^2), and recalls 'ar1', 'ar10', 'ar100'
    (with so many detections per image) and 'ar_small', 'ar_medium',
    'ar_large'; of masks with 'mask_' before. Sizes without objects are left
    out.

  Raises:
    ValueError: an unknown kind, or masks are missing.
  """
  _check(truth, said, kind)
  params = cocoeval.Params(iouType=_TYPES[kind])
  tables = _empty(params, len(truth.names))
  with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
    for index in np.flatnonzero(truth.counts):
      found = _class(truth, said, int(index), kind)
      for table, part in zip(tables, found, strict=True):
        table[..., index, :, :] = part[..., 0, :, :]
    stats = _summary(tables, truth.category_ids, kind)
  before = "mask_" if kind == "masks" else ""
  named = zip(_NAMES, stats.tolist(), strict=True)
  figures = {before + name: value for name, value in named if value >= 0}
  return Judged(
    f"COCO, {kind}",
    figures,
    _by_class(tables),
    truth.counts,
    _curves(tables, np.asarray(params.recThrs)),
  )


def _check(truth: Truth, said: Detections, kind: str) -> None:
  if kind not in _TYPES:
    raise ValueError(f"kind={kind!r}; it must be one of {sorted(_TYPES)}")
  if kind == "masks" and truth.masks is None:
    raise ValueError(
      "the test data has no masks to judge masks by; name data with masks in "
      "--config.test, or judge boxes"
    )
  if kind == "masks" and said.masks is None and len(said.scores):
    raise ValueError(
      "the detections have no masks; give the detector masks, or judge boxes"
    )


def _empty(params: cocoeval.Params, classes: int) -> _Tables:
  thresholds, recalls = len(params.iouThrs), len(params.recThrs)
  rest = (classes, len(params.areaRng), len(params.maxDets))
  return _Tables(
    -np.ones((thresholds, recalls, *rest)),
    -np.ones((thresholds, *rest)),
    -np.ones((thresholds, recalls, *rest)),
  )


def _class(truth: Truth, said: Detections, index: int, kind: Kind) -> _Tables:
  """The tables of one class alone."""
  wanted = np.flatnonzero(truth.classes == index)
  found = np.flatnonzero(said.classes == index)
  images = np.union1d(truth.image[wanted], said.image[found])
  judge = cocoeval.COCOeval(
    _api(truth, images, _objects(truth, wanted, kind)),
    _api(truth, images, _results(truth, said, found, kind)),
    _TYPES[kind],
  )
  judge.evaluate()
  judge.accumulate()
  return _Tables(*(judge.eval[name] for name in _Tables._fields))


def _api(
  truth: Truth, images: Int[np.ndarray, " n"], annotations: list[Annotation]
) -> coco.COCO:
  """What would have read the files."""
  api = coco.COCO()
  sizes = truth.sizes[images].tolist()
  # Their real names: images in another order break ties another way.
  names = [truth.image_ids[index] for index in images]
  dataset = {
    "images": [
      {"id": name, "height": height, "width": width}
      for name, (height, width) in zip(names, sizes, strict=True)
    ],
    "categories": [{"id": 0}],
    "annotations": annotations,
  }
  # The stubs ask for names of files and classes, which nothing here reads.
  api.dataset = dataset  # pyright: ignore[reportAttributeAccessIssue]
  api.createIndex()
  return api


def _objects(
  truth: Truth, rows: Int[np.ndarray, " k"], kind: Kind
) -> list[Annotation]:
  masks = truth.masks if kind == "masks" else None
  found = _annotations(truth, truth, rows, masks)
  for row, each in zip(rows, found, strict=True):
    each["iscrowd"] = int(truth.ignored[row])
    each["area"] = float(truth.area[row])
  return found


def _results(
  truth: Truth, said: Detections, rows: Int[np.ndarray, " d"], kind: Kind
) -> list[Annotation]:
  masks = said.masks if kind == "masks" else None
  found = _annotations(truth, said, rows, masks)
  for row, each in zip(rows, found, strict=True):
    each["iscrowd"] = 0
    each["score"] = float(said.scores[row])
    if masks is None:
      each["area"] = each["bbox"][2] * each["bbox"][3]
    else:
      each["area"] = rle.area(masks[row], truth.size(int(said.image[row])))
  return found


def _annotations(
  truth: Truth,
  boxed: Truth | Detections,
  rows: Int[np.ndarray, " k"],
  masks: tuple[bytes, ...] | None,
) -> list[Annotation]:
  """Where objects are; they are numbered from 1 on, for 0 means none."""
  boxes = xywh(boxed.boxes[rows])
  found = []
  for number, row in enumerate(rows):
    image = int(boxed.image[row])
    each = {
      "id": number + 1,
      "image_id": truth.image_ids[image],
      "category_id": 0,
      "bbox": boxes[number].tolist(),
    }
    if masks is not None:
      each["segmentation"] = rle.with_size(masks[row], truth.size(image))
    found.append(each)
  return found


def xywh(boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
  """(x0, y0, x1, y1) as COCO's files have them: corner, width, height."""
  found = np.array(boxes, np.float64)
  found[:, 2:] -= found[:, :2]
  return found


def _summary(
  tables: _Tables, category_ids: Ids, kind: Kind
) -> Float[np.ndarray, " 12"]:
  """The means, in the order that sums them up as there, to the last bit."""
  order = np.argsort(np.asarray(category_ids))
  judge = cocoeval.COCOeval(iouType=_TYPES[kind])
  found = {
    name: table[..., order, :, :] for name, table in tables._asdict().items()
  }
  # The stubs ask for all that `accumulate` leaves; only tables are read.
  judge.eval = found  # pyright: ignore[reportAttributeAccessIssue]
  judge.summarize()
  return judge.stats


def _by_class(tables: _Tables) -> dict[str, Float[np.ndarray, " classes"]]:
  precision = tables.precision[..., _ALL, _MOST]
  found = {
    "ap": precision.mean((0, 1)),
    "ap50": precision[_AT50].mean(0),
    "ap75": precision[_AT75].mean(0),
    "ar100": tables.recall[..., _ALL, _MOST].mean(0),
  }
  # A class without objects has -1 everywhere, the others nowhere.
  return {k: np.where(v < 0, np.nan, v) for k, v in found.items()}


def _curves(
  tables: _Tables, recall: Float[np.ndarray, " r"]
) -> tuple[Curve, ...]:
  precision = tables.precision[_AT50, :, :, _ALL, _MOST].T
  scores = tables.scores[_AT50, :, :, _ALL, _MOST].T
  return tuple(
    no_curve() if (p < 0).any() else Curve(recall, p, s)
    for p, s in zip(precision, scores, strict=True)
  )
