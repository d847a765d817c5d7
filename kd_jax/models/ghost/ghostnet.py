"""GhostNet (arXiv:1911.11907), V2 (2211.12905) and V3 (2404.11202), as in timm.

Half of the channels of every 1x1 convolution are cheap depthwise maps of the
other half. V2 weights them by long windows, V3 is trained with branches that
`kd_jax.models.fuse` merges. As in timm, 'stem' is the first convolution alone,
the stages end with the blocks of stride 2, and later ones of the last
resolution belong to the head; the last map is the tap 'final'. Initialisation:
as PyTorch's.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.convs import conv_norm
from kd_jax.models.ghost import blocks

VARIANTS: dict[str, dict[str, Any]] = {
  f"ghostnet{'' if version == 'v1' else version}_{round(100 * width):03d}": {
    "version": version,
    "width": width,
  }
  for version, widths in (
    ("v1", (0.5, 1.0, 1.3)),
    ("v2", (1.0, 1.3, 1.6)),
    ("v3", (0.5, 1.0, 1.3, 1.6)),
  )
  for width in widths
}

# Size of the windows, inner and outer width, share of squeeze-and-excitation,
# stride: of every block of timm's nine groups.
_Row = tuple[int, int, int, float, int]
_GROUPS: tuple[tuple[_Row, ...], ...] = (
  ((3, 16, 16, 0, 1),),
  ((3, 48, 24, 0, 2),),
  ((3, 72, 24, 0, 1),),
  ((5, 72, 40, 0.25, 2),),
  ((5, 120, 40, 0.25, 1),),
  ((3, 240, 80, 0, 2),),
  (
    (3, 200, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 480, 112, 0.25, 1),
    (3, 672, 112, 0.25, 1),
  ),
  ((5, 672, 160, 0.25, 2),),
  (
    (5, 960, 160, 0, 1),
    (5, 960, 160, 0.25, 1),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 0.25, 1),
  ),
)
_STRIDED = (1, 3, 5, 7)
_HEAD = 1280
_STEM = 16

_Rule = tuple[str, str, str]


def _convs(theirs: str, ours: str) -> tuple[_Rule, ...]:
  """A convolution and its normalisation: numbers 0 and 1 of a list."""
  return (
    (f"{theirs}.0.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.1", f"{ours}/bn", "norm"),
  )


def _branches(theirs: str, merged: str, ours: str) -> tuple[_Rule, ...]:
  """Branches of V3, and what they become."""
  return (
    (
      f"{theirs}_rpr_conv.{{i}}.conv.weight",
      f"{ours}/conv{{i}}/conv/kernel",
      "conv",
    ),
    (f"{theirs}_rpr_conv.{{i}}.bn1", f"{ours}/conv{{i}}/bn", "norm"),
    (f"{theirs}_rpr_scale.conv.weight", f"{ours}/scale/conv/kernel", "conv"),
    (f"{theirs}_rpr_scale.bn1", f"{ours}/scale/bn", "norm"),
    (f"{theirs}_rpr_skip", f"{ours}/identity", "norm"),
    (merged, f"{ours}/merged", "conv2d"),
  )


def _ghost(theirs: str, ours: str) -> tuple[_Rule, ...]:
  short, gate = f"{theirs}.short_conv.", f"{ours}/gate/"
  return (
    *_convs(f"{theirs}.primary_conv", f"{ours}/primary"),
    *_convs(f"{theirs}.cheap_operation", f"{ours}/cheap"),
    *_branches(
      f"{theirs}.primary", f"{theirs}.primary_conv.0", f"{ours}/primary"
    ),
    *_branches(
      f"{theirs}.cheap", f"{theirs}.cheap_operation.0", f"{ours}/cheap"
    ),
    *(
      rule
      for i in range(3)
      for rule in (
        (
          f"{short}{2 * i}.weight",
          f"{gate}conv{i}/kernel",
          "conv",
        ),
        (f"{short}{2 * i + 1}", f"{gate}bn{i}", "norm"),
      )
    ),
  )


def _block(stage: str) -> tuple[_Rule, ...]:
  theirs, ours = "blocks.{s}.{b}", f"params/{stage}/block{{s}}_{{b}}"
  return (
    *_ghost(f"{theirs}.ghost1", f"{ours}/ghost1"),
    *_ghost(f"{theirs}.ghost2", f"{ours}/ghost2"),
    (f"{theirs}.conv_dw.weight", f"{ours}/dw/conv/kernel", "conv"),
    (f"{theirs}.bn_dw", f"{ours}/dw/bn", "norm"),
    *_branches(f"{theirs}.dw", f"{theirs}.conv_dw", f"{ours}/dw"),
    (f"{theirs}.se.conv_reduce", f"{ours}/se/reduce", "conv2d"),
    (f"{theirs}.se.conv_expand", f"{ours}/se/expand", "conv2d"),
    (f"{theirs}.shortcut.0.weight", f"{ours}/short1/conv/kernel", "conv"),
    (f"{theirs}.shortcut.1", f"{ours}/short1/bn", "norm"),
    (f"{theirs}.shortcut.2.weight", f"{ours}/short2/conv/kernel", "conv"),
    (f"{theirs}.shortcut.3", f"{ours}/short2/bn", "norm"),
  )


RULES = (
  ("conv_stem.weight", "params/stem/kernel", "conv"),
  ("bn1", "params/stage1/bn1", "norm"),
  *_block("stage{k}"),
  *_block("neck"),
  ("blocks.9.0.conv.weight", "params/neck/last/conv/kernel", "conv"),
  ("blocks.9.0.bn1", "params/neck/last/bn", "norm"),
  ("conv_head.weight", "params/neck/conv_head/kernel", "pointwise"),
  ("conv_head.bias", "params/neck/conv_head/bias", "copy"),
  ("classifier", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(backbone.Backbone):
  """GhostNets; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    width: factor of all widths, which are then rounded to 4.
    version: 'v1', 'v2' or 'v3'.
    depths: how many blocks of each of the nine groups there are, from their
      beginning; groups 0, 1, 3, 5 and 7 have at least one.
    fused: the branches of V3 are merged, see `kd_jax.models.fuse`.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  width: float = 1.0
  version: str = "v1"
  depths: tuple[int, ...] = tuple(map(len, _GROUPS))
  fused: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("version", self.version, ("v1", "v2", "v3"))
    if not self.width > 0:
      raise ValueError(f"width is {self.width}; it must be > 0")
    most = tuple(map(len, _GROUPS))
    least = [int(s in (0, *_STRIDED)) for s in range(len(most))]
    if len(self.depths) != len(most) or not all(
      low <= depth <= high
      for low, depth, high in zip(least, self.depths, most, strict=True)
    ):
      raise ValueError(
        f"depths is {self.depths}; give {len(most)} numbers, each from "
        f"{tuple(least)} to {most}"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return _HEAD

  @property
  def _style(self) -> conv_norm.Style:
    return conv_norm.Style("relu", self.dtype, fused=self.fused)

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      x = layers.Conv(
        divisible(_STEM * self.width),
        3,
        2,
        dtype=self.dtype,
        kernel_init=conv_norm.torch_conv_init,
        name="stem",
      )(x)
      return x, {"stem": x}
    if stage == "head":
      return self._head(x, train)
    k = int(stage[-1])
    layer = blocks.Stage(
      self._blocks(range(2 * k - 2, 2 * k)), k == 1, self._style, name=stage
    )
    x = layer(x, train=train)
    return x, {stage: x}

  def _head(self, x: Array, train: bool) -> tuple[Array, dict[str, Array]]:
    inner = [row[1] for s in range(len(_GROUPS)) for row in self._rows(s)]
    pooled, last, before = blocks.Neck(
      self._blocks(range(8, len(_GROUPS))),
      divisible(inner[-1] * self.width),
      _HEAD,
      self.global_pool,
      self._style,
      name="neck",
    )(x, train=train)
    logits = pooled
    if self.num_classes:
      torch = layers.torch_linear_init(_HEAD)
      logits = nn.Dense(
        self.num_classes,
        dtype=self.dtype,
        kernel_init=torch,
        bias_init=torch,
        name="head",
      )(pooled)
    taps = {"final": last, "feature": before.mean((1, 2)), "pooled": pooled}
    return logits, {**taps, "logits": logits}

  def _rows(self, group: int) -> tuple[_Row, ...]:
    return _GROUPS[group][: self.depths[group]]

  def _blocks(self, groups: range) -> tuple[tuple[str, dict[str, Any]], ...]:
    out: list[tuple[str, dict[str, Any]]] = []
    for s in groups:
      for b, (size, inner, outer, share, stride) in enumerate(self._rows(s)):
        width = divisible(inner * self.width)
        fields = {
          "width": width,
          "features": divisible(outer * self.width),
          "size": size,
          "stride": stride,
          "squeezed": divisible(width * share) if share else 0,
          "branched": self.version == "v3",
          # The first two blocks have none.
          "gated": self.version != "v1" and s > 1,
        }
        out.append((f"block{s}_{b}", fields))
    return tuple(out)


def divisible(width: float) -> int:
  """The nearest multiple of 4 that is at least nine tenths of `width`."""
  rounded = max(4, int(width + 2) // 4 * 4)
  return rounded + 4 if rounded < 0.9 * width else rounded
