"""PP-HGNet and PP-HGNetV2, which RT-DETR uses (arXiv:2304.08069).

Names, widths and feature maps are timm's. 'stem' is at a stride of 4. A 1x1
convolution, `neck`, follows global pooling. Initialisation: convolutions
N(0, 2 / (k k c_out)), linear layers PyTorch's with biases 0.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.classic import hgnet_blocks
from kd_jax.types import STAGES


def _first(
  stem: tuple[int, ...],
  middle: tuple[int, ...],
  out: tuple[int, ...],
  depths: tuple[int, ...],
  count: int,
) -> dict[str, Any]:
  return {
    "stem_type": "v1",
    "stem_chs": stem,
    "middle": middle,
    "widths": out,
    "depths": depths,
    "layer_num": count,
    "light": (False,) * 4,
    "kernel_sizes": (3,) * 4,
  }


def _second(
  stem: tuple[int, int],
  middle: tuple[int, ...],
  out: tuple[int, ...],
  depths: tuple[int, ...],
  count: int,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  return {
    "stem_chs": stem,
    "middle": middle,
    "widths": out,
    "depths": depths,
    "layer_num": count,
    **more,
  }


_LAB: dict[str, Any] = {"use_lab": True}
_SHORT = (1, 1, 3, 1)
_WIDE = (128, 512, 1024, 2048)
VARIANTS = {
  "hgnet_tiny": _first(
    (48, 48, 96), (96, 128, 160, 192), (224, 448, 512, 768), (1, 1, 2, 1), 5
  ),
  "hgnet_small": _first(
    (64, 64, 128), (128, 160, 192, 224), (256, 512, 768, 1024), (1, 1, 2, 1), 6
  ),
  "hgnet_base": _first(
    (96, 96, 160), (192, 224, 256, 288), (320, 640, 960, 1280), (1, 2, 3, 2), 7
  ),
  "hgnetv2_b0": _second(
    (16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3, **_LAB
  ),
  "hgnetv2_b1": _second(
    (24, 32), (32, 48, 96, 192), (64, 256, 512, 1024), (1, 1, 2, 1), 3, **_LAB
  ),
  "hgnetv2_b2": _second(
    (24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), _SHORT, 4, **_LAB
  ),
  "hgnetv2_b3": _second((24, 32), (32, 64, 128, 256), _WIDE, _SHORT, 5, **_LAB),
  "hgnetv2_b4": _second((32, 48), (48, 96, 192, 384), _WIDE, _SHORT, 6),
  "hgnetv2_b5": _second((32, 64), (64, 128, 256, 512), _WIDE, (1, 2, 5, 2), 6),
  "hgnetv2_b6": _second(
    (48, 96), (96, 192, 384, 768), (192, 512, 1024, 2048), (2, 3, 6, 3), 6
  ),
}


def _unit(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  """Timm's names of a `Unit`."""
  return (
    (f"{theirs}.conv.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.bn", f"{ours}/bn", "norm"),
    (f"{theirs}.lab.scale", f"{ours}/lab/scale", "copy"),
    (f"{theirs}.lab.bias", f"{ours}/lab/bias", "copy"),
  )


def _stage(k: int) -> tuple[tuple[str, str, str], ...]:
  theirs, ours = f"stages.{k}", f"params/stage{k + 1}"
  block = f"{theirs}.blocks.{{b}}", f"{ours}/block{{b}}"
  return (
    *_unit(f"{theirs}.downsample", f"{ours}/down"),
    *_unit(f"{block[0]}.layers.{{i}}", f"{block[1]}/layer{{i}}"),
    *_unit(
      f"{block[0]}.layers.{{i}}.conv{{j}}", f"{block[1]}/layer{{i}}_{{j}}"
    ),
    *_unit(f"{block[0]}.aggregation.{{i}}", f"{block[1]}/sum{{i}}"),
    (f"{block[0]}.aggregation.1.conv", f"{block[1]}/gate", "conv2d"),
  )


RULES = (
  *_unit("stem.stem1", "params/stem/stem1"),
  *_unit("stem.stem{i}", "params/stem/stem{i}"),
  *_unit("stem.stem2a", "params/stem/stem2a"),
  *_unit("stem.stem2b", "params/stem/stem2b"),
  *_unit("stem.stem.{i}", "params/stem/first{i}"),
  *(rule for k in range(4) for rule in _stage(k)),
  ("head.last_conv.0.weight", "params/neck/dense/kernel", "pointwise"),
  ("head.last_conv.2.scale", "params/neck/lab/scale", "copy"),
  ("head.last_conv.2.bias", "params/neck/lab/bias", "copy"),
  ("head.fc", "params/head", "dense"),
)


class Model(backbone.Backbone):
  """HGNet family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    stem_type: 'v1' or 'v2'; blocks of 'v1' are gated.
    stem_chs: widths of the stem.
    middle: channels inside blocks, per stage.
    widths: channels of the stages.
    depths: blocks of the stages.
    layer_num: layers of a block.
    light: whether these are a 1x1 and a depthwise convolution, per stage.
    kernel_sizes: widths of their windows, per stage.
    use_lab: a learnt scale and shift after every activation.
    head_hidden_size: channels of the layer after pooling.
  """

  POOLS = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  crop_pct: float = 0.965
  stem_type: str = "v2"
  stem_chs: tuple[int, ...] = (16, 16)
  middle: tuple[int, ...] = (16, 32, 64, 128)
  widths: tuple[int, ...] = (64, 256, 512, 1024)
  depths: tuple[int, ...] = (1, 1, 2, 1)
  layer_num: int = 3
  light: tuple[bool, ...] = (False, False, True, True)
  kernel_sizes: tuple[int, ...] = (3, 3, 5, 5)
  use_lab: bool = False
  head_hidden_size: int = 2048

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("stem_type", self.stem_type, ("v1", "v2"))
    if self.stem_type == "v2":
      backbone.positive("stem_chs", self.stem_chs, 2)
    for name in ("middle", "widths", "depths", "kernel_sizes"):
      backbone.positive(name, getattr(self, name), 4)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_hidden_size

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage == "head":
      return self._classify(x)
    if stage == "stem":
      fields = {"lab": self.use_lab, "dtype": self.dtype, "name": "stem"}
      x = hgnet_blocks.Stem(self.stem_type, self.stem_chs, **fields)(
        x, train=train
      )
      return x, {stage: x}
    k = STAGES.index(stage) - 1
    x = hgnet_blocks.Stage(k > 0, self._blocks(k), name=stage)(x, train=train)
    return x, {stage: x}

  def _classify(self, x: Array) -> tuple[Array, dict[str, Array]]:
    neck = hgnet_blocks.Neck(
      self.head_hidden_size, self.use_lab, self.dtype, name="neck"
    )
    feature, pooled = neck(layers.global_pool(x, self.global_pool))
    logits = pooled
    if self.num_classes:
      init = layers.torch_linear_init(self.head_hidden_size)
      fields = {"dtype": self.dtype, "kernel_init": init, "name": "head"}
      logits = layers.Dense(self.num_classes, **fields)(pooled)
    return logits, {"feature": feature, "pooled": pooled, "logits": logits}

  def _blocks(self, k: int) -> tuple[dict[str, Any], ...]:
    shared = {
      "middle": self.middle[k],
      "features": self.widths[k],
      "count": self.layer_num,
      "size": self.kernel_sizes[k],
      "light": self.light[k],
      "gated": self.stem_type == "v1",
      "lab": self.use_lab,
      "dtype": self.dtype,
    }
    rates = strides.drop_rates(self.drop_path_rate, self.depths)[k]
    return tuple(
      {**shared, "residual": i > 0, "drop_path": rate}
      for i, rate in enumerate(rates)
    )
