"""Detections as the results file of COCO."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd_jax import disk
from kd_jax.transfer.average_precision.coco import xywh
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.truth import Truth

FILE = "detections.json"


def save(truth: Truth, said: Detections, folder: Path) -> Path:
  """Writes `folder/detections.json`, whole or not at all.

  It is a list of {'image_id', 'category_id', 'bbox': [x, y, width, height],
  'score'} and, of masks, 'segmentation': {'size', 'counts'}, as COCO's server
  and `COCO.loadRes` read it. Images and categories have the ids of the source's
  files; where it has none, they count from 0.

  Args:
    truth: knows the ids.
    said: what was found.
    folder: exists.

  Raises:
    ValueError: the disk is full.
  """
  path = folder / FILE
  temporary = path.with_name(f"{FILE}.{os.getpid()}.tmp")
  with disk.writing(FILE, folder), disk.removed(temporary):
    with temporary.open("w", encoding="utf-8") as file:
      before = "["
      for each in results(truth, said):
        file.write(f"{before}{json.dumps(each)}")
        before = ",\n"
      file.write("]\n" if before != "[" else "[]\n")
    os.replace(temporary, path)
  return path


def results(truth: Truth, said: Detections) -> Iterator[dict[str, Any]]:
  """The entries of the file, see `save`."""
  boxes = xywh(said.boxes)
  for row, image in enumerate(said.image.tolist()):
    found = {
      "image_id": truth.image_ids[image],
      "category_id": truth.category_ids[said.classes[row]],
      "bbox": boxes[row].tolist(),
      "score": float(said.scores[row]),
    }
    if said.masks is not None:
      size = list(truth.size(image))
      counts = said.masks[row].decode("ascii")
      found["segmentation"] = {"size": size, "counts": counts}
    yield found
