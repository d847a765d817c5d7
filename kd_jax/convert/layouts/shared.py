"""What the layouts have in common: students that all libraries build alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import numpy as safetensors_numpy

from kd_jax import disk
from kd_jax.convert.layouts.base import StateDict
from kd_jax.models.backbone import Backbone
from kd_jax.models.mobile import mobilenet

FILE = "model.safetensors"

RESNET = {
  "stem_type": "",
  "stem_width": 64,
  "replace_stem_pool": False,
  "avg_down": False,
  "se_ratio": 0.0,
}
MOBILENETV2 = {
  "arch_def": mobilenet.Model.arch_def,
  "act_layer": "relu6",
  "pad_type": "",
  "bn_eps": 1e-5,
  "stem_size": 32,
  "stem_stride": 2,
  "depth_multiplier": 1.0,
  "fix_stem_head": False,
}
REGNET = {"stem_width": 32, "group_min_ratio": 0.0}
SWIN = {"patch_size": 4, "mlp_ratio": 4.0, "qkv_bias": True}
CONVNEXT = {
  "stem_type": "patch",
  "patch_size": 4,
  "norm_eps": 1e-6,
  "head_norm_first": False,
  "head_hidden_size": 0,
}
VIT = {
  "class_token": True,
  "distilled": False,
  "reg_tokens": 0,
  "no_embed_class": False,
  "pre_norm": False,
  "init_values": None,
  "qk_norm": False,
  "act_layer": "gelu",
  "mlp_layer": "mlp",
  "norm_eps": 1e-6,
}
"""Fields that a family has in all libraries that have it."""

_CHANNELS = (64, 128, 256, 512)
_DEPTHS = {
  ("basic", (2, 2, 2, 2)): 18,
  ("basic", (3, 4, 6, 3)): 34,
  ("bottleneck", (3, 4, 6, 3)): 50,
  ("bottleneck", (3, 4, 23, 3)): 101,
  ("bottleneck", (3, 8, 36, 3)): 152,
}

_INDEX = "relative_position_index"
_TABLE = "relative_position_bias_table"


def write(tensors: StateDict, folder: Path, form: str) -> None:
  """Writes model.safetensors; the form does not matter.

  Raises:
    ValueError: the disk is full.
  """
  del form
  whole = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
  data = safetensors_numpy.save(whole, metadata={"format": "pt"})
  disk.write(folder / FILE, data)


def depth(model: Backbone) -> str:
  """What libraries call a ResNet by, as a config writes it.

  If they have no such one it is a text that says so, which no library takes
  for a depth; the network is then to be built by hand.
  """
  found = _DEPTHS.get((model.block, tuple(model.layers)))
  if found and tuple(model.channels) == _CHANNELS:
    return str(found)
  return f'"unknown: blocks {model.layers} of widths {model.channels}"'


def bytes_of(numbers: tuple[float, ...]) -> list[float]:
  """Mean or deviation of pixels in [0, 1] as one of pixels in [0, 255]."""
  return [round(255 * float(n), 3) for n in numbers]


def normed(norm: str, like: str, tensors: StateDict) -> StateDict:
  """Adds the layer normalisations of maps, which students do not have.

  Detectors normalise every map that they read. All but the last are new there;
  they start as the identity, which is how the library itself starts them.

  Args:
    norm: their names, with '{}' for the stage from 0.
    like: normalisations of the same widths, with '{}' for the stage.
    tensors: of the student.
  """
  found = dict(tensors)
  for stage in range(3):
    width = tensors[f"{like.format(stage)}.weight"].shape
    found[f"{norm.format(stage)}.weight"] = np.ones(width, np.float32)
    found[f"{norm.format(stage)}.bias"] = np.zeros(width, np.float32)
  return found


def indexed(tensors: StateDict) -> StateDict:
  """Adds which entry of a table of position biases is for which two pixels.

  It is a buffer in the windows of Swin (arXiv:2103.14030): row of the
  query, column of the key.

  Raises:
    ValueError: the windows are not squares of one size.
  """
  sizes = {len(v) for k, v in tensors.items() if k.endswith(_TABLE)}
  side = round(max(sizes) ** 0.5)
  if len(sizes) > 1 or side * side not in sizes:
    raise ValueError(
      f"detectors have windows of one size, this student's position biases are "
      f"{sorted(sizes)}. Set --config.student.overrides.always_partition=True "
      "and one window_size in its training"
    )
  index = position_index((side + 1) // 2)
  new = {k.replace(_TABLE, _INDEX): index for k in tensors if _TABLE in k}
  return {**tensors, **new}


def position_index(side: int) -> np.ndarray:
  """int64 (side^2, side^2): rows of the table, for a window of `side`."""
  rows, columns = np.divmod(np.arange(side * side), side)
  down = rows[:, None] - rows + side - 1
  across = columns[:, None] - columns + side - 1
  return down * (2 * side - 1) + across
