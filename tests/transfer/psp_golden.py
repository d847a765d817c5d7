"""PSPNet on ResNet-18 as KDEP's authors transfer with it, rebuilt.

`golden/seg_psp_r18.npz` holds what their PyTorch code makes of weights that are
a function of name and shape (see `goldens.make_param`), of drawn images, and
of labels `y`, 255 = ignored. Long arrays hold every `stride`-th number, in the
order of PyTorch's layout.

  golden = psp_golden.load()
  net, variables = psp_golden.network(golden)
  logits = net.apply(variables, golden.images)["logits"]

For sliding windows: `wide_image` is the normalised image of `slide_pred`
(height, width, classes; every k-th number, see `thinned`) and `slide_argmax`.
The network takes normalised images.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import goldens as gw
import jax.numpy as jnp
import numpy as np
import zoo

from kd_jax import convert, models, trees
from kd_jax.models import backbone
from kd_jax.transfer.heads import fcn, psp
from kd_jax.transfer.segmenter import Segmenter

FILE = pathlib.Path(__file__).parents[1] / "golden" / "seg_psp_r18.npz"


@dataclasses.dataclass(frozen=True)
class Golden:
  """The file, and the inputs of its numbers; images are NHWC."""

  meta: dict[str, Any]
  arrays: dict[str, np.ndarray]
  images: np.ndarray
  label: np.ndarray  # (2, h, w) int16, -1 = ignored
  wide_image: np.ndarray  # (1, h, w, 3)


def load() -> Golden:
  arrays = dict(np.load(FILE))
  meta = json.loads(arrays.pop("meta_json").tobytes())
  size, classes = meta["size"], meta["classes"]
  rng = np.random.Generator(np.random.PCG64(meta["seed"]))
  images = rng.standard_normal((2, 3, size, size)).transpose(0, 2, 3, 1)
  # The draws in between are those of the labels, which the file holds.
  rng.integers(0, classes, (2, size // 8 + 1, size // 8 + 1))
  rng.random((2, size, size))
  wide = (rng.random((*meta["slide_hw"], 3)) * 255).astype(np.float32)
  mean, std = _colours()
  label = arrays["y"].astype(np.int16)
  return Golden(
    meta,
    arrays,
    images.astype(np.float32),
    np.where(label == 255, np.int16(-1), label),
    ((wide - mean) / std)[None],
  )


def network(golden: Golden) -> tuple[Segmenter, dict[str, Any]]:
  """(network without dropout, its fresh variables)."""
  net = models.create_model(
    "resnet18",
    num_classes=0,
    output_stride=8,
    dilation_type="conv2",
    **zoo.RAW,
  )
  heads = {"num_classes": golden.meta["classes"], "dropout": 0.0}
  whole = Segmenter(net, psp.Head(**heads), fcn.Head(**heads))
  weights = {
    name: gw.make_param(name, tuple(shape), golden.meta["center"])
    for name, shape in golden.meta["names"]
  }
  return whole, placed(net, weights)


def sliding() -> tuple[Any, np.ndarray, int, dict[str, np.ndarray]]:
  """(network as an `Apply` on pixels 0 to 255, image, crop, numbers)."""
  golden = load()
  net, variables = network(golden)

  def apply(pixels: Any) -> Any:
    mean, std = _colours()
    return net.apply(variables, (pixels - mean) / std)["logits"]

  mean, std = _colours()
  pixels = golden.wide_image[0] * std + mean
  return apply, pixels, golden.meta["crop"], golden.arrays


def _colours() -> list[np.ndarray]:
  """ImageNet's mean and deviation, on the scale of pixels."""
  return [
    255 * np.float32(v) for v in (backbone.IMAGENET_MEAN, backbone.IMAGENET_STD)
  ]


def placed(net: backbone.Backbone, weights: dict[str, Any]) -> dict[str, Any]:
  """PyTorch's tensors as variables here; works for gradients as well."""
  body = {
    _timm(name): value
    for name, value in weights.items()
    if name.startswith("layer")
  }
  with zoo.zeros():
    found = trees.flatten(convert.from_timm(net, body))
  flat = {path.replace("/", "/backbone/", 1): v for path, v in found.items()}
  for theirs, ours in _heads():
    for leaf, value in weights.items():
      owner, _, kind = leaf.rpartition(".")
      if owner == theirs and kind != "num_batches_tracked":
        flat[_path(ours, kind, value)] = _laid_out(value)
  return trees.unflatten(flat)


def thinned(x: Any, stride: int) -> np.ndarray:
  """What the file keeps of NHWC maps."""
  return np.asarray(x).transpose(0, 3, 1, 2).reshape(-1)[::stride]


def cross_entropy(logits: Any, label: Any) -> Any:
  """Mean over the pixels that are not ignored."""
  logits = logits - logits.max(-1, keepdims=True)
  log_p = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
  picked = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[..., None], -1)
  return -jnp.where(label >= 0, picked[..., 0], 0).sum() / (label >= 0).sum()


def _timm(name: str) -> str:
  name = name.replace("layer0.0.", "conv1.")
  return name.replace("layer0.1.", "bn1.")


def _heads() -> list[tuple[str, str]]:
  """(their module, (our module))."""
  pairs = []
  for i, side in enumerate((1, 2, 3, 6)):
    pairs.append((f"ppm.features.{i}.1", f"head/ppm/bin{side}/conv"))
    pairs.append((f"ppm.features.{i}.2", f"head/ppm/bin{side}/bn"))
  for theirs, ours in (("cls", "head/bottleneck"), ("aux", "aux/conv1")):
    pairs.append((f"{theirs}.0", f"{ours}/conv"))
    pairs.append((f"{theirs}.1", f"{ours}/bn"))
    pairs.append((f"{theirs}.4", f"{ours.split('/')[0]}/classifier"))
  return pairs


def _path(module: str, kind: str, value: np.ndarray) -> str:
  if kind.startswith("running_"):
    return f"batch_stats/{module}/{kind.removeprefix('running_')}"
  weight = "kernel" if value.ndim == 4 else "scale"
  return f"params/{module}/{weight if kind == 'weight' else kind}"


def _laid_out(value: np.ndarray) -> np.ndarray:
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
