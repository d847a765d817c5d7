"""Mask R-CNN as KDEP's authors transfer with it (Detectron2), rebuilt.

`golden/det_*.npz` hold what their PyTorch code makes of weights that are a
function of name and shape (see `goldens.make_param`), of two images, and of
their objects. Long arrays hold every k-th number, in the order of PyTorch's
layout.

  golden = detector_golden.load("det_r18_fpn")
  net, variables = detector_golden.network(golden)
  taps = net.apply(variables, golden.images, truth=golden.truth)
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import goldens as gw
import numpy as np
import zoo

from kd_jax import convert, models, trees
from kd_jax.models import backbone
from kd_jax.transfer.detection import detector
from kd_jax.types import Objects

FOLDER = pathlib.Path(__file__).parents[2] / "golden"
PLANS = {
  "det_r18_fpn": ("resnet18", {"name": "fpn"}),
  "det_r50_c4": ("resnet50", {"name": "c4"}),
}
COLOURS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
LEVELS = ("stage1", "stage2", "stage3", "stage4")


@dataclasses.dataclass(frozen=True)
class Golden:
  """The file, and the inputs of its numbers; images are NHWC in [0, 1]."""

  name: str
  meta: dict[str, Any]
  arrays: dict[str, np.ndarray]
  images: np.ndarray
  truth: Objects

  def both(self, name: str) -> list[np.ndarray]:
    """An array of each image."""
    return [self.arrays[f"{name}_{i}"] for i in range(2)]


def load(name: str) -> Golden:
  arrays = dict(np.load(FOLDER / f"{name}.npz"))
  meta = json.loads(arrays.pop("meta_json").tobytes())
  images = np.float32(arrays["image"]) / 255
  return Golden(name, meta, arrays, images, _truth(arrays, meta["hw"]))


def _truth(arrays: dict[str, np.ndarray], size: list[int]) -> Objects:
  """Whole images are the frames of the masks; padded to five objects."""
  height, width = size
  boxes, masks = np.zeros((2, 5, 4), np.float32), np.zeros((2, 5, *size), "u1")
  classes = np.full((2, 5), -1, np.int32)
  for i in range(2):
    number = len(arrays[f"gt_classes_{i}"])
    boxes[i, :number] = arrays[f"gt_boxes_{i}"]
    classes[i, :number] = arrays[f"gt_classes_{i}"]
    bits = np.unpackbits(arrays[f"gt_masks_{i}"])
    masks[i, :number] = bits[: number * height * width].reshape(-1, *size)
  frames = np.tile(np.float32([0, 0, width, height]), (2, 5, 1))
  sizes = np.tile(np.int32(size), (2, 1))
  return Objects(boxes, classes, masks, frames, sizes)


def network(golden: Golden, **fields: Any) -> tuple[Any, dict[str, Any]]:
  """(network, its variables)."""
  student, form = PLANS[golden.name]
  colours = {f: tuple(float(x) / 255 for x in v) for f, v in COLOURS.items()}
  net = models.create_model(student, num_classes=0, **colours)
  own = {
    "num_classes": golden.meta["num_classes"],
    "masks": True,
    "rpn_batch": 64,
    "box_batch": 32,
    "pre_nms": (300, 300),
    "post_nms": (64, 64),
    "detections": 20,
    "sample": "first",
  }
  whole = detector.build(net, {**form, **own, **fields})
  scale = golden.meta["scale"]
  weights = {
    name: gw.make_param(
      name, tuple(shape), golden.meta["center"], scale.get(name, 1.0)
    )
    for name, shape in golden.meta["names"]
  }
  return whole, placed(net, weights)


def placed(net: backbone.Backbone, weights: dict[str, Any]) -> dict[str, Any]:
  """PyTorch's tensors as variables here; works for gradients as well."""
  body, rest = {}, {}
  for name, value in weights.items():
    timm = _timm(name)
    (body if timm else rest)[timm or name] = value
  with zoo.zeros():
    found = trees.flatten(convert.from_timm(net, body))
  flat = {path.replace("/", "/backbone/", 1): v for path, v in found.items()}
  for name, value in rest.items():
    owner, _, kind = name.rpartition(".")
    if kind != "num_batches_tracked":
      flat[_path(_module(owner), kind, value)] = _laid_out(owner, value)
  return trees.unflatten(flat)


def _timm(name: str) -> str:
  """The backbone's name in timm; '' of what belongs to no backbone."""
  name = re.sub(r"^backbone\.(bottom_up\.)?|^roi_heads\.(?=res5\.\d)", "", name)
  name = name.replace("stem.conv1.norm.", "bn1.")
  name = name.replace("stem.conv1.", "conv1.")
  name = re.sub(r"\.conv(\d)\.norm\.", r".bn\1.", name)
  name = name.replace(".shortcut.norm.", ".downsample.1.")
  name = name.replace(".shortcut.", ".downsample.0.")
  name = re.sub(r"^res(\d)\.", lambda m: f"layer{int(m[1]) - 1}.", name)
  own = name.startswith(("layer", "conv1.", "bn1."))
  return name if own else ""


_RULES = (
  (r"backbone\.fpn_(lateral|output)(\d)", "neck/{0}_stage{1}"),
  (r"proposal_generator\.rpn_head\.conv", "rpn/conv"),
  (r"proposal_generator\.rpn_head\.objectness_logits", "rpn/objectness"),
  (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn/deltas"),
  (r"roi_heads\.box_head\.(fc\d)", "box/{0}"),
  (r"roi_heads\.box_predictor\.cls_score", "box/predictor/classes"),
  (r"roi_heads\.box_predictor\.bbox_pred", "box/predictor/deltas"),
  (r"roi_heads\.res5\.norm", "box/norm"),
  (r"roi_heads\.mask_head\.mask_fcn(\d)", "mask/conv{0}"),
  (r"roi_heads\.mask_head\.deconv", "mask/deconv"),
  (r"roi_heads\.mask_head\.predictor", "mask/classifier"),
)


def _module(owner: str) -> str:
  for pattern, ours in _RULES:
    found = re.fullmatch(pattern, owner)
    if found:
      parts = list(found.groups())
      if ours.startswith("neck"):
        parts[1] = int(parts[1]) - 1
      return ours.format(*parts)
  raise KeyError(owner)


def _path(module: str, kind: str, value: np.ndarray) -> str:
  if kind.startswith("running_"):
    return f"batch_stats/{module}/{kind.removeprefix('running_')}"
  weight = "kernel" if value.ndim > 1 else "scale"
  return f"params/{module}/{weight if kind == 'weight' else kind}"


def _laid_out(owner: str, value: np.ndarray) -> np.ndarray:
  if owner.endswith("fc1") and value.ndim == 2:
    # They flatten (channels, rows, columns).
    value = value.reshape(len(value), -1, 7, 7).transpose(0, 2, 3, 1)
    value = value.reshape(len(value), -1)
  if owner.endswith("deconv") and value.ndim == 4:
    return value.transpose(2, 3, 0, 1)
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def thinned(x: Any, count: int = 3000) -> np.ndarray:
  """What the file keeps of an array in PyTorch's order."""
  flat = np.asarray(x).reshape(-1)
  return flat[:: max(1, flat.size // count) | 1]
