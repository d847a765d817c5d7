"""Small detectors of all forms, and what is in the images they see."""

from __future__ import annotations

import numpy as np

from kd_jax import models
from kd_jax.transfer.detection import detector
from kd_jax.types import Objects

RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24], "stem_width": 8}
VIT = {
  "img_size": [32, 64],
  "patch_size": 16,
  "embed_dim": 16,
  "depth": 4,
  "num_heads": 2,
}
NETWORKS = {
  "resnet18": RESNET,
  "vit_tiny_patch16_224": VIT,
  "swin_tiny_patch4_window7_224": {"strict_img_size": False},
}
SMALL = {
  "num_classes": 3,
  "pre_nms": (20, 10),
  "post_nms": (12, 8),
  "rpn_batch": 16,
  "box_batch": 8,
  "detections": 5,
  "masks": True,
  "mask_channels": 4,
  "mask_convs": 1,
}
SIZES = {
  "fpn": {"sizes": (8, 16, 32, 48, 64), "channels": 8, "widths": (8,)},
  "simple": {"sizes": (8, 16, 32, 48, 64), "channels": 8, "widths": (8,)},
  "c4": {"sizes": (8, 16, 32), "pooled": 4},
}


def tiny(student, form, body=None, **fields):
  body = NETWORKS.get(student, {}) if body is None else body
  net = models.create_model(student, num_classes=0, **body)
  return detector.build(net, {"name": form, **SMALL, **SIZES[form], **fields})


def truth(objects=((1, 0), (1, 2)), size=(64, 64)):
  """Two images with objects of these classes; up to three fit."""
  rng = np.random.default_rng(2)
  boxes, classes = np.zeros((2, 3, 4), "f4"), np.full((2, 3), -1, np.int32)
  for i, own in enumerate(objects):
    number = len(own)
    corner = rng.uniform(0, 24, (number, 2))
    sides = rng.uniform(16, 40, (number, 2))
    boxes[i, :number] = np.concatenate([corner, corner + sides], -1)
    classes[i, :number] = own
  masks = rng.integers(0, 2, (2, 3, 8, 8)).astype(np.uint8)
  return Objects(boxes, classes, masks, boxes, np.tile(np.int32(size), (2, 1)))
