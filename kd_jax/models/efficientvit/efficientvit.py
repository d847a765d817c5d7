"""EfficientViT of MIT (arXiv:2205.14756): timm's names, widths and maps.

'stem' is at a stride of 2. Initialisation: PyTorch's.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.convs import conv_norm
from kd_jax.models.efficientvit import blocks
from kd_jax.types import STAGES


def _variant(
  width: int,
  depths: tuple[int, ...],
  head: tuple[int, int],
  head_dim: int = 32,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  widths = tuple(width * 2**i for i in range(5))
  fields = {"depths": depths, "head_widths": head, "head_dim": head_dim}
  return {"widths": widths, **fields, **more}


_LARGE: dict[str, Any] = {
  "large": True,
  "act_layer": "gelu_tanh",
  "norm_eps": 1e-7,
  "crop_pct": 1.0,
}
_B, _L = (2304, 2560), (3072, 3200)
VARIANTS = {
  "efficientvit_b0": _variant(8, (1, 2, 2, 2, 2), (1024, 1280), 16),
  "efficientvit_b1": _variant(16, (1, 2, 3, 3, 4), (1536, 1600), 16),
  "efficientvit_b2": _variant(24, (1, 3, 4, 4, 6), _B),
  "efficientvit_b3": _variant(32, (1, 4, 6, 6, 9), _B),
  "efficientvit_l1": _variant(32, (1, 1, 1, 6, 6), _L, **_LARGE),
  "efficientvit_l2": _variant(32, (1, 2, 2, 8, 8), _L, **_LARGE),
  "efficientvit_l3": _variant(64, (1, 2, 2, 8, 8), (6144, 6400), **_LARGE),
}

_CONVS = (
  "conv1",
  "conv2",
  "depth_conv",
  "inverted_conv",
  "point_conv",
  "spatial_conv",
)


def _unit(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return (
    (f"{theirs}.conv.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.conv.bias", f"{ours}/conv/bias", "copy"),
    (f"{theirs}.norm", f"{ours}/norm", "norm"),
  )


def _local(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  return tuple(
    rule
    for name in _CONVS
    for rule in _unit(f"{theirs}.{name}", f"{ours}/{name}")
  )


def _stage(k: int) -> tuple[tuple[str, str, str], ...]:
  block, ours = f"stages.{k}.blocks.{{b}}", f"params/stage{k + 1}/"
  context, attention = f"{block}.context_module.main", f"{ours}attention{{b}}"
  return (
    *_local(f"{block}.main", f"{ours}block{{b}}"),
    *_local(f"{block}.local_module.main", f"{ours}local{{b}}"),
    (f"{context}.qkv.conv.weight", f"{attention}/qkv/kernel", "conv"),
    (f"{context}.aggreg.0.0.weight", f"{attention}/deep/kernel", "conv"),
    (f"{context}.aggreg.0.1.weight", f"{attention}/mix/kernel", "conv"),
    *_unit(f"{context}.proj", f"{attention}/proj"),
  )


RULES = (
  *_unit("stem.in_conv", "params/stem/in_conv"),
  *_local("stem.res{b}.main", "params/stem/block{b}"),
  *(rule for k in range(4) for rule in _stage(k)),
  *_unit("head.in_conv", "params/neck/in_conv"),
  ("head.classifier.0.weight", "params/neck/dense/kernel", "linear"),
  ("head.classifier.1", "params/neck/norm", "affine"),
  ("head.classifier.4", "params/head", "dense"),
)


class Model(backbone.Backbone):
  """EfficientViT family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    widths: channels of the stem and of the stages.
    depths: their blocks.
    head_dim: channels of an attention head.
    head_widths: of the two layers around global pooling.
    large: the version 'l': full convolutions early, attention in 'stage4'.
    act_layer: activation, one of `conv_norm.ACTIVATIONS`.
    norm_eps: added to variances.
  """

  POOLS = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  crop_pct: float = 0.95
  widths: tuple[int, ...] = (8, 16, 32, 64, 128)
  depths: tuple[int, ...] = (1, 2, 2, 2, 2)
  head_dim: int = 32
  head_widths: tuple[int, int] = (1024, 1280)
  large: bool = False
  act_layer: str = "hard_swish"
  norm_eps: float = 1e-5

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("widths", self.widths, 5)
    backbone.positive("depths", self.depths, 5)
    backbone.positive("head_widths", self.head_widths, 2)
    backbone.one_of("act_layer", self.act_layer, conv_norm.ACTIVATIONS)
    for width in self.widths[4 if self.large else 3 :]:
      if width % self.head_dim:
        raise ValueError(
          f"head_dim={self.head_dim} does not divide {width}, a width of a "
          "stage with attention"
        )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_widths[1]

  @property
  def style(self) -> conv_norm.Style:
    """What the layers share."""
    return conv_norm.Style(self.act_layer, self.dtype, self.norm_eps)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage == "head":
      return self._classify(x, train)
    k = STAGES.index(stage)
    stem = self.widths[0] if k == 0 else 0
    layer = blocks.Stage(
      stem, self._blocks(k), self.head_dim, self.style, name=stage
    )
    x = layer(x, train=train)
    return x, {stage: x}

  def _classify(self, x: Array, train: bool) -> tuple[Array, dict[str, Array]]:
    neck = blocks.Neck(
      self.head_widths, self.global_pool, self.style, name="neck"
    )
    feature = neck(x, train=train)
    pooled = logits = self.style.activate(feature)
    if self.num_classes:
      init = layers.torch_linear_init(self.num_features)
      fields = {"dtype": self.dtype, "kernel_init": init, "name": "head"}
      logits = layers.Dense(self.num_classes, **fields)(pooled)
    return logits, {"feature": feature, "pooled": pooled, "logits": logits}

  def _blocks(self, k: int) -> tuple[blocks.Spec, ...]:
    width, depth, spec = self.widths[k], self.depths[k], blocks.Spec
    if k == 0:
      return (spec("conv" if self.large else "ds", width),) * depth
    attends = k == 4 if self.large else k > 2
    if not self.large:
      first = spec("mb", width, 2, 4.0, attends, residual=False)
      rest = spec("vit" if attends else "mb", width, expansion=4.0)
      return (first, *(rest,) * (depth if attends else depth - 1))
    fewer = k > 2
    kind = "mb" if fewer else "fused"
    first = spec(kind, width, 2, 24.0 if attends else 16.0, fewer, False)
    if attends:
      rest = spec("vit", width, expansion=6.0)
    else:
      rest = spec(kind, width, expansion=4.0, fewer=fewer)
    return (first, *(rest,) * depth)
