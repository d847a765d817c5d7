"""What a detector refuses, each in one line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from detector_nets import RESNET, SMALL, tiny, truth

from kd_jax import models
from kd_jax.transfer.detection import detector, losses


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"norm": "batch"}, r"norm is 'batch'; allowed: \['frozen', 'train'"),
    ({"sample": "all"}, "detector.sample is 'all'"),
    ({"nms": 7}, r"detector.nms is 7; it must lie in \[0, 1\]"),
    ({"rpn_iou": (0.7, 0.3)}, "rpn_iou is .0.7, 0.3.*smaller one first"),
    ({"box_batch": 2}, "box_batch . detector.box_fraction is 0"),
    ({"detections": 0}, "detector.detections is 0; it must be at least 1"),
    ({"sizes": (8, 16)}, r"sizes is \(8, 16\); a pyramid has 5 levels"),
    ({"ratios": (1, -1)}, "ratios is .1, -1.; it must hold positive"),
    ({"pre_nms": (100,)}, "pre_nms is .100,.; it must be a tuple of 2"),
    ({"extra_norm": True}, "'fpn' has no field 'extra_norm'; it has"),
    ({"masks": 1}, "masks is 1 .int.; it must be of the type bool"),
    ({"name": "yolo"}, "detector has no 'yolo'; it has.*c4.*fpn.*simple"),
  ],
)
def test_wrong_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny("resnet18", "fpn", **fields)


def test_wrong_networks():
  net = models.create_model("resnet18", num_classes=4, **RESNET)
  with pytest.raises(ValueError, match="classifier of 4 classes.*num_cl"):
    detector.build(net, {"name": "fpn", **SMALL})
  dilated = {**RESNET, "output_stride": 16}
  cases = (
    ("vit_tiny_patch16_224", "fpn", None, "tokens of one size.*name=simple"),
    ("vit_tiny_patch16_224", "c4", None, "student has tokens.*name=simple"),
    ("resnet18", "simple", None, "student has maps.*detector.name=fpn"),
    ("resnet18", "fpn", dilated, "half the sides.*name=c4"),
  )
  for student, form, body, message in cases:
    net = tiny(student, form, body)
    shapes = zoo.shapes(net.backbone)[0]
    with pytest.raises(ValueError, match=message):
      net.form.inputs(net.backbone, shapes, net.example_size)
  whole = jax.ShapeDtypeStruct((1, 5, 4, 8), jnp.float32)
  with pytest.raises(ValueError, match="no one stride.*divisor=32"):
    net.form.strides([whole], (64, 64))


def test_masks_have_to_be_there():
  found = truth().replace(masks=np.zeros((2, 3, 0, 0), np.uint8))
  with pytest.raises(ValueError, match="objects have none.*masks=True or"):
    losses._mask({}, found)
