"""Hiera (arXiv:2306.00989), with timm's names.

A hierarchy of plain blocks: the first two stages attend inside windows of the
same part of the image, the others over the whole map; the first block of stages
2 to 4 pools its query 2 x 2. `abswin` members add a position inside the window
to one of the image (arXiv:2311.05613). The authors reorder tokens so that
windows lie together; here they stay maps. Initialisation: linear layers and
positions N(0, 0.02^2), the last layer of branch i of the network over
sqrt(2 (i + 1)), classifier N(0, (2e-5)^2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.models.hiera import block
from kd_jax.types import STAGES

_SMALL, _DEEP = (1, 2, 11, 2), (2, 6, 36, 4)


def _variant(image: int = 224, **fields: backbone.FieldValue) -> dict[str, Any]:
  return {
    "img_size": image,
    "input_size": (3, image, image),
    "crop_pct": 0.9 if image == 224 else 0.95,
    **fields,
  }


_ABSWIN = {"abs_win_pos_embed": True, "init_values": 1e-5}
VARIANTS = {
  "hiera_tiny_224": _variant(stages=(1, 2, 7, 2)),
  "hiera_small_224": _variant(stages=_SMALL),
  "hiera_base_224": _variant(),
  "hiera_base_plus_224": _variant(embed_dim=112, num_heads=2),
  "hiera_large_224": _variant(embed_dim=144, num_heads=2, stages=_DEEP),
  "hiera_huge_224": _variant(embed_dim=256, num_heads=4, stages=_DEEP),
  "hiera_small_abswin_256": _variant(
    256,
    stages=_SMALL,
    global_pos_size=(16, 16),
    use_expand_proj=False,
    **_ABSWIN,
  ),
  "hiera_base_abswin_256": _variant(256, **_ABSWIN),
}

RULES = (
  ("patch_embed.proj", "params/stem/proj", "conv2d"),
  ("pos_embed", "params/stem/pos_embed", "copy"),
  ("pos_embed_win", "params/stem/pos_embed_win", "copy"),
  *transformer.BLOCK_RULES,
  ("blocks.{b}.proj", "params/stage{s}/block{b}/proj", "dense"),
  ("head.norm", "params/neck/norm", "affine"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(backbone.Backbone):
  """Hiera; `VARIANTS` lists the named members.

  Images must have the size `img_size`. 'feature' equals 'pooled', which is
  normalised.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    img_size: size of the images, one number or (height, width), multiples of
      32.
    embed_dim: width of stage 1; later stages double it.
    num_heads: heads of stage 1; later stages double them.
    stages: number of blocks per stage.
    mlp_ratio: width of the MLPs over that of the blocks.
    use_expand_proj: see `block.Block.expand_proj`.
    abs_win_pos_embed: add positions inside windows.
    global_pos_size: size of the table of positions of the image then.
    init_values: first value of the scale of each branch; None has no scales.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax")
  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  NO_DECAY: ClassVar[tuple[str, ...]] = ("pos_embed",)

  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  img_size: int | tuple[int, int] = 224
  embed_dim: int = 96
  num_heads: int = 1
  stages: tuple[int, ...] = (2, 3, 16, 3)
  mlp_ratio: float = 4.0
  use_expand_proj: bool = True
  abs_win_pos_embed: bool = False
  global_pos_size: tuple[int, int] = (14, 14)
  init_values: float | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("stages", self.stages, 4)
    backbone.positive("img_size", self.example_size, 2)
    backbone.positive("global_pos_size", self.global_pos_size, 2)
    if any(side % (block.STRIDE * block.UNIT) for side in self.example_size):
      raise ValueError(
        f"img_size is {self.img_size}; both sides must be multiples of "
        f"{block.STRIDE * block.UNIT}"
      )
    if self.embed_dim < 1 or not self.mlp_ratio > 0:
      raise ValueError(
        f"embed_dim is {self.embed_dim} and mlp_ratio {self.mlp_ratio}; both "
        "must be > 0"
      )
    if self.num_heads < 1 or self.embed_dim % self.num_heads:
      raise ValueError(
        f"num_heads is {self.num_heads}; it must divide embed_dim="
        f"{self.embed_dim}"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return 8 * self.embed_dim

  @property
  def example_size(self) -> tuple[int, int]:
    """`img_size` as a pair."""
    return patches.pair(self.img_size)

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage == "stem":
      return self._stem(x)
    if stage == "head":
      return self._head(x)
    blocks = block.Stage(self._blocks(stage), name=stage)
    x = blocks(x, train=train)
    return x, {stage: x}

  def _stem(self, x: Array) -> tuple[Array, dict[str, Array]]:
    if x.shape[1:3] != self.example_size:
      raise ValueError(
        f"images are {x.shape[1:3]}, the model has img_size={self.img_size}. "
        "Set img_size to the size of the images."
      )
    height, width = self.example_size
    coarse = self.global_pos_size if self.abs_win_pos_embed else None
    grid = (height // block.STRIDE, width // block.STRIDE)
    x = block.Stem(self.embed_dim, grid, coarse, self.dtype, name="stem")(x)
    return x, {"stem": x}

  def _head(self, x: Array) -> tuple[Array, dict[str, Array]]:
    pooled = layers.global_pool(x, self.global_pool)
    pooled = logits = Neck(self.dtype, name="neck")(pooled)
    if self.num_classes:
      init = initializers.normal(2e-5)
      logits = layers.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=init, name="head"
      )(pooled)
    return logits, {"feature": pooled, "pooled": pooled, "logits": logits}

  def _blocks(self, stage: str) -> tuple[tuple[int, dict[str, Any]], ...]:
    k = STAGES.index(stage) - 1
    first = sum(self.stages[:k])
    return tuple(
      (i, self._block(i, k, first=i == first))
      for i in range(first, first + self.stages[k])
    )

  def _block(self, number: int, k: int, *, first: bool) -> dict[str, Any]:
    pooled = first and k > 0
    # A block that pools attends as those of the stage in front.
    attends = k - 1 if pooled else k
    return {
      "attn": {
        "features": self.embed_dim * 2**k,
        "num_heads": self.num_heads * 2**k,
        "window": block.UNIT // 2**attends if attends < 2 else 0,
        "pooled": pooled,
        "out_init": initializers.normal(0.02 / math.sqrt(2 * (number + 1))),
      },
      "mlp_ratio": self.mlp_ratio,
      "expand_proj": self.use_expand_proj,
      "init_values": self.init_values,
      "drop_path": self.drop_path_rate * number / (sum(self.stages) - 1),
      "dtype": self.dtype,
    }


class Neck(nn.Module):
  """The normalisation behind pooling.

  Attributes:
    dtype: compute dtype.
  """

  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Parameters under `norm`."""
    return layers.layer_norm(block.EPS, self.dtype, "norm")(x)


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The authors' names as timm's."""
  del shapes
  out = {}
  for name, value in state_dict.items():
    name = name.replace("head.projection.", "head.fc.")
    for old in ("encoder_norm.", "norm."):
      if name.startswith(old):
        name = "head.norm." + name.removeprefix(old)
    out["pos_embed" if name == "pos_embed_abs" else name] = value
  return out
