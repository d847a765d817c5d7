"""Random objects and detections, as a source, as arrays and as COCO's JSON."""

import contextlib
import io
import json

import numpy as np
from pycocotools import coco, cocoeval
from pycocotools import mask as coco_mask

from kd_jax import interfaces
from kd_jax.transfer.average_precision import detections, truth
from kd_jax.transfer.average_precision.found import Found


class Source(interfaces.DataSource):
  """Objects alone; `records` are what `objects` returns."""

  num_classes = 0
  fingerprint = "0" * 16

  def __init__(self, records, names, **ids):
    self.records, self.box_names = records, names
    vars(self).update(ids)

  def __len__(self):
    return len(self.records)

  def objects(self, index):
    return self.records[index]


def record(size, boxes, classes, ignored=None, masks=None, **more):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  ignored = np.zeros(len(boxes), bool) if ignored is None else ignored
  area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
  masks = {} if masks is None else {"masks": masks}
  return {
    "size": size,
    "boxes": boxes,
    "classes": np.array(classes, np.int32),
    "ignored": np.array(ignored, bool),
    "area": area,
    **masks,
    **more,
  }


def random_boxes(rng, count, size):
  height, width = size
  corners = rng.random((count, 2)) * [0.8 * width, 0.8 * height]
  extent = np.exp(rng.uniform(1.5, np.log(min(size)), (count, 2)))
  far = np.minimum(corners + extent, [width, height])
  return np.concatenate([corners, far], 1).astype(np.float32)


def ellipses(boxes, size):
  """A mask in every box."""
  rows, columns = np.indices(size) + 0.5
  x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
  across = (2 * columns - x0 - x1) / (x1 - x0)
  down = (2 * rows - y0 - y1) / (y1 - y0)
  return across**2 + down**2 <= 1


def random_source(rng, images=12, classes=4, masks=True):
  """Some images without objects, one class without any, and crowds."""
  records = []
  for index in range(images):
    size = (int(rng.integers(90, 200)), int(rng.integers(90, 200)))
    count = 0 if index % 5 == 4 else int(rng.integers(1, 9))
    boxes = random_boxes(rng, count, size)
    kinds = rng.integers(0, classes - 1, count)
    crowds = rng.random(count) < 0.15
    drawn = ellipses(boxes, size) if masks else None
    records.append(record(size, boxes, kinds, crowds, drawn))
  ids = {
    # In another order than the images, as in COCO's files.
    "image_ids": np.array([7 * i % 97 + 3 for i in range(images)]),
    "category_ids": [90, 2, 17, 44, 5, 6][:classes],
  }
  return Source(records, [f"class {i}" for i in range(classes)], **ids)


def random_found(rng, source, side=14):
  """Objects moved a little and others, with ties of scores."""
  found = []
  for index, known in enumerate(source.records):
    if index % 7 == 6:
      continue  # nothing is said of it
    boxes = np.repeat(known["boxes"], 2, 0)
    boxes = boxes + rng.normal(0, 4, boxes.shape)
    kinds = np.repeat(known["classes"], 2)
    boxes = np.concatenate([boxes, random_boxes(rng, 5, known["size"])])
    kinds = np.append(kinds, rng.integers(0, len(source.box_names), 5))
    kept = (boxes[:, 2:] - boxes[:, :2] > 1).all(-1)
    boxes, kinds = boxes[kept].astype(np.float32), kinds[kept].astype(np.int32)
    scores = -np.sort(-np.round(rng.random(len(boxes)), 1))
    masks = rng.random((len(boxes), side, side)).astype(np.float32)
    centred = np.hypot(*(np.indices((side, side)) - side / 2 + 0.5)) < side / 2
    masks = 0.3 * masks + 0.6 * centred
    order = rng.permutation(len(boxes))
    found.append(
      Found(index, boxes[order], scores.astype(np.float32), kinds[order], masks)
    )
  return found


def judged_case(seed=0, **options):
  """(source, found, truth, said)."""
  rng = np.random.default_rng(seed)
  source = random_source(rng, **options)
  found = random_found(rng, source)
  known = truth.collect(source)
  return source, found, known, detections.collect(known, reversed(found))


def api_of(source):
  """The truth as pycocotools reads it, by way of JSON."""
  annotations = []
  for image, known in zip(source.image_ids, source.records, strict=True):
    for row, (x0, y0, x1, y1) in enumerate(known["boxes"].tolist()):
      each = {
        "id": len(annotations) + 1,
        "image_id": int(image),
        "category_id": source.category_ids[known["classes"][row]],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": float(known["area"][row]),
        "iscrowd": int(known["ignored"][row]),
      }
      if "masks" in known:
        run = coco_mask.encode(np.asfortranarray(known["masks"][row], np.uint8))
        run["counts"] = run["counts"].decode()
        each["segmentation"] = run
      annotations.append(each)
  sizes = [known["size"] for known in source.records]
  images = [
    {"id": int(image), "height": height, "width": width}
    for image, (height, width) in zip(source.image_ids, sizes, strict=True)
  ]
  categories = [
    {"id": i, "name": name}
    for i, name in zip(source.category_ids, source.box_names, strict=True)
  ]
  api = coco.COCO()
  api.dataset = json.loads(
    json.dumps(
      {"images": images, "categories": categories, "annotations": annotations}
    )
  )
  with contextlib.redirect_stdout(io.StringIO()):
    api.createIndex()
  return api


def official(source, entries, kind):
  """COCOeval of a results file's entries."""
  with contextlib.redirect_stdout(io.StringIO()):
    api = api_of(source)
    entries = [dict(each) for each in entries]
    if kind == "segm":  # else sizes would be those of boxes
      for each in entries:
        del each["bbox"]
    judge = cocoeval.COCOeval(api, api.loadRes(entries), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return judge
