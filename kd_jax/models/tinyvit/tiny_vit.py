"""TinyViT (arXiv:2207.10666), with timm's names.

Convolutions in the first stage; windows whose places attend with a bias per
distance, and depthwise convolutions, in the others. Initialisation: linear
layers N(0, 0.02^2), convolutions as in PyTorch, the last normalisation of a
bottleneck at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convs import conv_norm
from kd_jax.models.tinyvit import blocks

_SMALL = {"embed_dims": (64, 128, 160, 320), "num_heads": (2, 4, 5, 10)}
_MEDIUM = {"embed_dims": (64, 128, 256, 448), "num_heads": (2, 4, 8, 14)}

# Classes of the first weights that timm has of each.
_22K = {"num_classes": 21_841}

VARIANTS: dict[str, dict[str, Any]] = {
  "tiny_vit_5m_224": {**_SMALL, **_22K},
  "tiny_vit_11m_224": {**_MEDIUM, **_22K},
  "tiny_vit_21m_224": _22K,
  "tiny_vit_21m_384": {
    "window_sizes": (12, 12, 24, 12),
    "input_size": (3, 384, 384),
    "crop_pct": 1.0,
  },
  "tiny_vit_21m_512": {
    "window_sizes": (16, 16, 32, 16),
    "input_size": (3, 512, 512),
    "crop_pct": 1.0,
    "crop_mode": "squash",
  },
}

_Rule = tuple[str, str, str]


def _convs(theirs: str, ours: str) -> tuple[_Rule, ...]:
  return (
    (f"{theirs}.conv.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.bn", f"{ours}/bn", "norm"),
  )


def _stage(stage: int) -> tuple[_Rule, ...]:
  theirs, ours = f"stages.{stage - 1}.", f"params/stage{stage}/"
  block, here = theirs + "blocks.{b}.", ours + "block{b}/"
  if stage == 1:
    return _convs(block + "conv{c}", here + "conv{c}")
  return (
    *_convs(theirs + "downsample.conv{c}", ours + "downsample/conv{c}"),
    *_convs(block + "local_conv", here + "local_conv"),
    (
      block + "attn.attention_biases",
      here + "attn/attention_biases",
      "copy",
    ),
    (block + "mlp.norm", here + "norm", "affine"),
    *(
      (block + name, here + name.replace(".", "/"), layout)
      for name, layout in (
        ("attn.norm", "affine"),
        ("attn.qkv", "dense"),
        ("attn.proj", "dense"),
        ("mlp.fc1", "dense"),
        ("mlp.fc2", "dense"),
      )
    ),
  )


RULES = (
  *_convs("patch_embed.conv{c}", "params/stem/conv{c}"),
  *(rule for stage in (1, 2, 3, 4) for rule in _stage(stage)),
  ("head.norm", "params/neck", "affine"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(backbone.Backbone):
  """TinyViT; `VARIANTS` lists the named members.

  'feature' equals 'pooled', which is normalised.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    embed_dims: width per stage.
    depths: number of blocks per stage.
    num_heads: heads per stage; the first has none.
    window_sizes: side of the windows per stage, in pixels of its map.
    mlp_ratio: width of the MLPs over that of the maps.
    mbconv_expand_ratio: inner over outer width of the first stage's blocks.
    local_conv_size: window of the convolutions between attention and MLP.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax")
  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  NO_DECAY: ClassVar[tuple[str, ...]] = ("attention_biases",)

  interpolation: str = "bicubic"
  crop_pct: float = 0.95
  embed_dims: tuple[int, ...] = (96, 192, 384, 576)
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 18)
  window_sizes: tuple[int, ...] = (7, 7, 14, 7)
  mlp_ratio: float = 4.0
  mbconv_expand_ratio: float = 4.0
  local_conv_size: int = 3

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("embed_dims", "depths", "num_heads", "window_sizes"):
      backbone.positive(name, getattr(self, name), 4)
    pairs = zip(self.embed_dims[1:], self.num_heads[1:], strict=True)
    if any(width % heads for width, heads in pairs):
      raise ValueError(
        f"num_heads is {self.num_heads}; behind the first, each must divide "
        f"its width in embed_dims={self.embed_dims}"
      )
    if self.local_conv_size % 2 != 1:
      raise ValueError(
        f"local_conv_size is {self.local_conv_size}; it must be odd"
      )
    for name in ("mlp_ratio", "mbconv_expand_ratio"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.embed_dims[-1]

  @property
  def _style(self) -> conv_norm.Style:
    return conv_norm.Style("gelu", self.dtype)

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage == "stem":
      stem = blocks.Stem(self.embed_dims[0], self._style, name="stem")
      x = stem(x, train=train)
      return x, {"stem": x}
    if stage == "head":
      return self._head(x)
    k = int(stage[-1]) - 1
    kind = blocks.Block if k else blocks.MBConv
    merge = {"features": self.embed_dims[k], "style": self._style}
    x = blocks.Stage(kind, self._blocks(k), merge if k else None, name=stage)(
      x, train=train
    )
    return x, {stage: x}

  def _blocks(self, k: int) -> tuple[dict[str, Any], ...]:
    fields: dict[str, Any] = {"style": self._style}
    if k:
      side = self.window_sizes[k]
      fields["attn"] = {"num_heads": self.num_heads[k], "side": side}
      fields["mlp_ratio"] = self.mlp_ratio
      fields["local_conv_size"] = self.local_conv_size
    else:
      fields["expand_ratio"] = self.mbconv_expand_ratio
    rates = strides.drop_rates(self.drop_path_rate, self.depths)[k]
    return tuple({**fields, "drop_path": rate} for rate in rates)

  def _head(self, x: Array) -> tuple[Array, dict[str, Array]]:
    pooled = layers.global_pool(x, self.global_pool)
    norm = layers.layer_norm(blocks.EPS, self.dtype, "neck")
    pooled = logits = norm(pooled)
    if self.num_classes:
      logits = layers.Dense(
        self.num_classes,
        dtype=self.dtype,
        kernel_init=transformer.INIT,
        name="head",
      )(pooled)
    return logits, {"feature": pooled, "pooled": pooled, "logits": logits}


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Without the tables of indices of the authors' files."""
  del shapes
  return {
    name: value
    for name, value in state_dict.items()
    if not name.endswith("attention_bias_idxs")
  }
