"""CoAtNet (arXiv:2106.04803) and MaxViT (2204.01697), with timm's names.

Inverted bottlenecks or ConvNeXt blocks, then attention over the whole map
(CoAtNet), or in windows and over grids of places that lie far apart (MaxViT).
timm drops an eighth of the hidden units of the MLP that makes relative biases
(`rmlp`) in training; here none are. Initialisation: convolutions N(0, 2 / fan
out), linear layers N(0, 0.02^2).
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.models.maxxvit import (
  blocks,
  checkpoints,
  conv_blocks,
  parts,
  variants,
)
from kd_jax.types import STAGES

VARIANTS = variants.TABLE
RULES = checkpoints.RULES
adapt = checkpoints.adapt

_KINDS = ("C", "T", "M", "PM")


class Model(backbone.Backbone):
  """CoAtNet and MaxViT; `VARIANTS` lists the named members.

  Images must have the size `img_size`. 'final' comes with the head: the
  normalised last map, or the last map where `head_hidden_size` normalises what
  is pooled. 'feature' equals 'pooled'.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    img_size: size of the images, one number or (height, width), multiples of
      32.
    embed_dim: width of each stage.
    depths: number of blocks per stage.
    block_type: 'C' (convolution), 'T' (attention over the map), 'M' (MaxViT)
      or 'PM' (the same with parallel attentions) per stage; or a tuple of them,
      the last of which is repeated.
    stem_width: of the two convolutions in front, one number or two.
    stem_bias: they have a bias.
    head_hidden_size: width of a layer in front of the classifier; None has
      none.
    conv_block_type: 'mbconv' or 'convnext'.
    conv_expand_output: see `conv_blocks.MbConv`, as are the next ones.
    conv_pre_norm_act: see there.
    conv_output_bias: see there.
    conv_stride_mode: see there; 'convnext' is always strided in its 'dw'.
    conv_pool_type: see there.
    conv_padding: '' or 'same' (TensorFlow's).
    conv_attn_early: see there.
    conv_attn_act_layer: see there.
    conv_attn_ratio: see there.
    conv_init_values: first value of the scale of ConvNeXt blocks.
    conv_act_layer: one of `transformer.ACTIVATIONS`.
    conv_norm_eps: of the normalisations; None is 1e-5 or, for ConvNeXt, 1e-6.
    transformer_dim_head: width of a head.
    transformer_head_first: see `blocks.Attention`.
    transformer_expand_first: see `blocks.Transformer`.
    transformer_shortcut_bias: see there.
    transformer_pool_type: see there.
    transformer_rel_pos_type: see `blocks.RelativeBias`.
    transformer_rel_pos_dim: see there.
    transformer_partition_ratio: windows have 1 / so many of the image's sides.
    transformer_no_block_attn: attend over grids only.
    transformer_init_values: first value of the scale of a branch.
    transformer_act_layer: one of `transformer.ACTIVATIONS`.
    transformer_norm_layer: 'layernorm2d', or 'batchnorm2d' for CoAtNet.
    transformer_norm_eps: of the normalisations.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "max", "avgmax")
  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  NO_DECAY: ClassVar[tuple[str, ...]] = ("rel_pos",)

  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.5, 0.5, 0.5)
  interpolation: str = "bicubic"
  crop_pct: float = 0.95
  img_size: int | tuple[int, int] = 224
  embed_dim: tuple[int, ...] = (96, 192, 384, 768)
  depths: tuple[int, ...] = (2, 3, 5, 2)
  block_type: tuple[Any, ...] = ("C", "C", "T", "T")
  stem_width: int | tuple[int, int] = 64
  stem_bias: bool = False
  head_hidden_size: int | None = None
  conv_block_type: str = "mbconv"
  conv_expand_output: bool = True
  conv_pre_norm_act: bool = False
  conv_output_bias: bool = True
  conv_stride_mode: str = "dw"
  conv_pool_type: str = "avg2"
  conv_padding: str = ""
  conv_attn_early: bool = False
  conv_attn_act_layer: str = "silu"
  conv_attn_ratio: float = 0.25
  conv_init_values: float | None = 1e-6
  conv_act_layer: str = "gelu"
  conv_norm_eps: float | None = None
  transformer_dim_head: int = 32
  transformer_head_first: bool = True
  transformer_expand_first: bool = True
  transformer_shortcut_bias: bool = True
  transformer_pool_type: str = "avg2"
  transformer_rel_pos_type: str = "bias"
  transformer_rel_pos_dim: int = 512
  transformer_partition_ratio: int = 32
  transformer_no_block_attn: bool = False
  transformer_init_values: float | None = None
  transformer_act_layer: str = "gelu"
  transformer_norm_layer: str = "layernorm2d"
  transformer_norm_eps: float = 1e-6

  def __post_init__(self) -> None:
    self.block_type = tuple(
      tuple(kind) if isinstance(kind, list) else kind
      for kind in self.block_type
    )
    super().__post_init__()
    _check(self)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_hidden_size or self.embed_dim[-1]

  @property
  def example_size(self) -> tuple[int, int]:
    """`img_size` as a pair."""
    return patches.pair(self.img_size)

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      return self._stem(x, train=train)
    if stage == "head":
      return self._head(x, train=train)
    x = parts.Stage(self._blocks(stage), name=stage)(x, train=train)
    return x, {stage: x}

  @property
  def _batch(self) -> bool:
    return self.conv_block_type == "mbconv"

  @property
  def _eps(self) -> float:
    if self.conv_norm_eps is not None:
      return self.conv_norm_eps
    return 1e-5 if self._batch else 1e-6

  def _stem(self, x: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    if (x.shape[1], x.shape[2]) != self.example_size:
      raise ValueError(
        f"images are {x.shape[1:3]}, the model has img_size={self.img_size}. "
        "Set img_size to the size of the images."
      )
    x = parts.Stem(
      patches.pair(self.stem_width),
      self.stem_bias,
      self.conv_act_layer,
      self._batch,
      self._eps,
      self.conv_padding == "same",
      self.dtype,
      name="stem",
    )(x, train=train)
    return x, {"stem": x}

  def _head(self, x: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    hidden, eps = self.head_hidden_size, self.transformer_norm_eps
    batch = self.transformer_norm_layer == "batchnorm2d"
    neck = parts.Neck(batch, eps, hidden, self.dtype, name="neck")
    final = x if hidden else neck(x, train=train)
    pooled = layers.global_pool(final, self.global_pool)
    pooled = logits = neck(pooled, train=train) if hidden else pooled
    if self.num_classes:
      head = layers.Dense(
        self.num_classes,
        dtype=self.dtype,
        kernel_init=transformer.INIT,
        name="head",
      )
      logits = head(pooled)
    taps = {"final": final, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}

  def _blocks(
    self, stage: str
  ) -> tuple[tuple[type[nn.Module], dict[str, Any]], ...]:
    k = STAGES.index(stage) - 1
    kinds = self.block_type[k]
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    done, last = sum(self.depths[:k]), max(sum(self.depths) - 1, 1)
    return tuple(
      self._block(
        kinds[min(i, len(kinds) - 1)],
        self.embed_dim[k],
        1 if i else 2,
        self.drop_path_rate * (done + i) / last,
      )
      for i in range(self.depths[k])
    )

  def _block(
    self, kind: str, width: int, stride: int, drop_path: float
  ) -> tuple[type[nn.Module], dict[str, Any]]:
    conv = functools.partial(self._conv, width, drop_path=drop_path)
    if kind == "C":
      return conv(stride=stride)
    shared = {**self._attention(), "drop_path": drop_path}
    if kind == "T":
      return blocks.Transformer, {
        **shared,
        "width": width,
        "stride": stride,
        "expand_first": self.transformer_expand_first,
        "shortcut_bias": self.transformer_shortcut_bias,
        "pool_type": self.transformer_pool_type,
        "batch_norm": self.transformer_norm_layer == "batchnorm2d",
      }
    ratio = self.transformer_partition_ratio
    sized = {**shared, "size": tuple(s // ratio for s in self.example_size)}
    if kind == "PM":
      attention = (("attn", blocks.ParallelPartition, sized),)
      convs = (conv(stride=stride), conv(stride=1))
      return parts.MaxBlock, {"convs": convs, "attention": attention}
    attention = tuple(
      (name, blocks.Partition, {**sized, "grid": grid})
      for name, grid in (("attn_block", False), ("attn_grid", True))
      if grid or not self.transformer_no_block_attn
    )
    convs = (conv(stride=stride),)
    return parts.MaxBlock, {"convs": convs, "attention": attention}

  def _attention(self) -> dict[str, Any]:
    rel_pos = (self.transformer_rel_pos_type, self.transformer_rel_pos_dim)
    return {
      "attn": {
        "dim_head": self.transformer_dim_head,
        "head_first": self.transformer_head_first,
        "rel_pos": rel_pos,
      },
      "act_layer": self.transformer_act_layer,
      "eps": self.transformer_norm_eps,
      "init_values": self.transformer_init_values,
      "dtype": self.dtype,
    }

  def _conv(
    self, width: int, *, stride: int, drop_path: float
  ) -> tuple[type[nn.Module], dict[str, Any]]:
    shared = {
      "width": width,
      "stride": stride,
      "output_bias": self.conv_output_bias,
      "act_layer": self.conv_act_layer,
      "eps": self._eps,
      "drop_path": drop_path,
      "dtype": self.dtype,
    }
    if not self._batch:
      values = {"init_values": self.conv_init_values}
      return conv_blocks.ConvNext, {**shared, **values}
    names = ("expand_output", "pre_norm_act", "stride_mode", "pool_type")
    more = ("attn_early", "attn_act_layer", "attn_ratio")
    own = {n: getattr(self, f"conv_{n}") for n in (*names, *more)}
    same = self.conv_padding == "same"
    return conv_blocks.MbConv, {**shared, **own, "same": same}


def _check(model: Model) -> None:
  """Raises ValueError for impossible fields."""
  backbone.positive("img_size", model.example_size, 2)
  backbone.positive("embed_dim", model.embed_dim, 4)
  backbone.positive("depths", model.depths, 4)
  backbone.positive("stem_width", patches.pair(model.stem_width), 2)
  acts, pools = tuple(transformer.ACTIVATIONS), conv_blocks.POOLS
  for name, allowed in (
    ("conv_block_type", ("mbconv", "convnext")),
    ("conv_stride_mode", ("pool", "1x1", "dw")),
    ("conv_padding", ("", "same")),
    ("conv_pool_type", pools),
    ("conv_act_layer", acts),
    ("conv_attn_act_layer", acts),
    ("transformer_pool_type", pools),
    ("transformer_act_layer", acts),
    ("transformer_rel_pos_type", ("bias", "bias_tf", "mlp")),
    ("transformer_norm_layer", ("layernorm2d", "batchnorm2d")),
  ):
    backbone.one_of(name, getattr(model, name), allowed)
  _check_kinds(model)
  if any(side % 32 for side in model.example_size):
    raise ValueError(
      f"img_size is {model.img_size}; both sides must be multiples of 32"
    )
  ratio = model.transformer_partition_ratio
  if ratio < 1 or ratio % 32 or any(s % ratio for s in model.example_size):
    raise ValueError(
      f"transformer_partition_ratio is {ratio}; it must be a multiple of 32 "
      f"that divides img_size={model.img_size}"
    )
  head = model.transformer_dim_head
  if head < 1 or any(width % head for width in model.embed_dim):
    raise ValueError(
      f"transformer_dim_head is {head}; it must divide embed_dim="
      f"{model.embed_dim}"
    )


def _check_kinds(model: Model) -> None:
  if len(model.block_type) != 4:
    raise ValueError(
      f"block_type is {model.block_type}; it has one entry for each of 4 stages"
    )
  for kinds in model.block_type:
    for kind in (kinds,) if isinstance(kinds, str) else kinds:
      backbone.one_of("block_type", kind, _KINDS)
