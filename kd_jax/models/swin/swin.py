"""Swin Transformer (arXiv:2103.14030) and its S3 members (arXiv:2111.14725).

Names, hyper-parameters and maps are timm's: patch merging opens a stage, maps
are taken before the last normalisation. Initialisation: linear layers and
position biases N(0, 0.02^2), other biases 0, patch embedding as PyTorch's
convolution. timm's default drop_path_rate is 0.1; here it is 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer, window_checkpoints, windows
from kd_jax.types import STAGES


def _variant(
  embed_dim: int, depth: int, heads: int, **more: backbone.FieldValue
) -> dict[str, Any]:
  return {
    "embed_dim": embed_dim,
    "depths": (2, 2, depth, 2),
    "num_heads": tuple(heads * 2**k for k in range(4)),
    **more,
  }


_AT_384 = {
  "img_size": 384,
  "window_size": 12,
  "input_size": (3, 384, 384),
  "crop_pct": 1.0,
}
VARIANTS = {
  "swin_tiny_patch4_window7_224": _variant(96, 6, 3),
  "swin_small_patch4_window7_224": _variant(96, 18, 3),
  "swin_base_patch4_window7_224": _variant(128, 18, 4),
  "swin_base_patch4_window12_384": _variant(128, 18, 4, **_AT_384),
  "swin_large_patch4_window7_224": _variant(192, 18, 6),
  "swin_large_patch4_window12_384": _variant(192, 18, 6, **_AT_384),
  "swin_s3_tiny_224": _variant(96, 6, 3, window_size=(7, 7, 14, 7)),
  "swin_s3_small_224": _variant(96, 18, 3, window_size=(14, 14, 14, 7)),
  "swin_s3_base_224": _variant(96, 30, 3, window_size=(7, 7, 14, 7)),
}


def rules(*attention: tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
  """Rules of Swin or Swin V2; `attention` says what their attention holds."""
  block = (
    ("norm1", "norm1", "affine"),
    ("norm2", "norm2", "affine"),
    ("mlp.fc1", "mlp/fc1", "dense"),
    ("mlp.fc2", "mlp/fc2", "dense"),
    ("attn.qkv.weight", "attn/qkv/kernel", "linear"),
    ("attn.proj", "attn/proj", "dense"),
    *(
      (f"attn.{theirs}", f"attn/{ours}", how) for theirs, ours, how in attention
    ),
  )
  merging = "params/stage{}/downsample/"
  return (
    ("patch_embed.proj", "params/stem/proj", "conv2d"),
    ("patch_embed.norm", "params/stem/norm", "affine"),
    *(
      (
        f"layers.{k - 1}.blocks.{{b}}.{theirs}",
        f"params/stage{k}/block{{b}}/{ours}",
        how,
      )
      for k in range(1, 5)
      for theirs, ours, how in block
    ),
    *(
      (f"layers.{k - 1}.downsample.norm", merging.format(k) + "norm", "affine")
      for k in range(2, 5)
    ),
    *(
      (
        f"layers.{k - 1}.downsample.reduction.weight",
        merging.format(k) + "reduction/kernel",
        "linear",
      )
      for k in range(2, 5)
    ),
    ("norm", "params/neck/norm", "affine"),
    ("head.fc", "params/head", "dense"),
  )


RULES = rules(
  ("qkv.bias", "qkv/bias", "copy"),
  (
    "relative_position_bias_table",
    "relative_position_bias_table",
    "copy",
  ),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

adapt = window_checkpoints.adapt


class Attention(nn.Module):
  """Self-attention inside windows, with a bias per relative position.

  Attributes:
    num_heads: number of heads.
    size: height and width of the window.
    qkv_bias: add a bias to query, key and value.
    dtype: compute dtype; softmax is at least float32.
  """

  num_heads: int
  size: tuple[int, int]
  qkv_bias: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n m l d"], mask: np.ndarray | None
  ) -> Float[Array, "n m l d"]:
    """Mixes the tokens of each window; see `windows.softmax_attention`."""
    d = x.shape[-1]
    options = {"dtype": self.dtype, "kernel_init": windows.linear_init}
    qkv = layers.Dense(3 * d, self.qkv_bias, name="qkv", **options)(x)
    qkv = qkv.reshape(*x.shape[:3], 3, self.num_heads, -1)
    query, key, value = (qkv[..., i, :, :] for i in range(3))
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum(
      "nmqhd,nmkhd->nmhqk",
      query,
      key,
      preferred_element_type=windows.wide(query.dtype),
    )
    logits = logits + self._bias().astype(logits.dtype)
    x = windows.softmax_attention(logits, value, mask)
    return layers.Dense(d, name="proj", **options)(x)

  def _bias(self) -> Float[Array, "h l l"]:
    table = self.param(
      "relative_position_bias_table",
      initializers.normal(0.02),
      (windows.table_length(self.size), self.num_heads),
      jnp.float32,
    )
    return table[windows.relative_index(self.size)].transpose(2, 0, 1)


class Block(nn.Module):
  """Window attention and an MLP, each normalised at its entry.

  Attributes:
    num_heads: number of heads.
    window: size and shift of the windows.
    mlp_ratio: hidden width of the MLP over the block's.
    qkv_bias: add a bias to query, key and value.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  num_heads: int
  window: windows.Window
  mlp_ratio: float
  qkv_bias: bool
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Two residual branches."""
    attention = Attention(
      self.num_heads, self.window.size, self.qkv_bias, self.dtype, name="attn"
    )
    norm1, norm2 = (
      layers.layer_norm(windows.EPS, self.dtype, name)
      for name in ("norm1", "norm2")
    )
    y = windows.attend(norm1(x), self.window, attention)
    x = x + layers.DropPath(self.drop_path)(y, train=train)
    y = windows.Mlp(self.mlp_ratio, self.dtype, name="mlp")(norm2(x))
    return x + layers.DropPath(self.drop_path)(y, train=train)


class Model(backbone.Backbone):
  """Swin family; `VARIANTS` lists the named members.

  Besides the common taps it emits 'final' with the head: the normalised last
  map, which is what global pooling reads. 'stem' is the patch embedding.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    img_size: side of the images, or (height, width). It decides where windows
      are reduced to the map, and thereby the parameters' shapes.
    patch_size: side of a patch.
    embed_dim: width of stage 1; later stages double it.
    depths: number of blocks per stage.
    num_heads: number of heads per stage.
    window_size: side of the windows, (height, width), or one of either per
      stage.
    mlp_ratio: hidden width of the MLPs over the blocks'.
    qkv_bias: add a bias to query, key and value.
    always_partition: neither reduce windows to the map nor drop the shift
      where one window covers it.
    strict_img_size: only accept images of `img_size`; else of any size that
      patches fill.
  """

  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  MERGE_NORM_FIRST: ClassVar[bool] = True
  NO_DECAY: ClassVar[tuple[str, ...]] = ("relative_position_bias_table",)

  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  img_size: int | tuple[int, int] = 224
  patch_size: int = 4
  embed_dim: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  window_size: int | tuple[Any, ...] = 7
  mlp_ratio: float = 4.0
  qkv_bias: bool = True
  always_partition: bool = False
  strict_img_size: bool = True

  def __post_init__(self) -> None:
    self.window_size = windows.frozen(self.window_size)
    super().__post_init__()
    backbone.positive("depths", self.depths, 4)
    backbone.positive("num_heads", self.num_heads, 4)
    for name in ("patch_size", "embed_dim", "mlp_ratio"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")
    if min(windows.pair("img_size", self.img_size)) < self.patch_size:
      raise ValueError(
        f"img_size is {self.img_size}; it must be at least patch_size="
        f"{self.patch_size}"
      )
    windows.per_stage("window_size", self.window_size)
    for k, heads in enumerate(self.num_heads):
      if self.embed_dim * 2**k % heads:
        raise ValueError(
          f"num_heads is {self.num_heads}: {heads} heads do not divide the "
          f"width {self.embed_dim * 2**k} of stage{k + 1}"
        )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.embed_dim * 8 * layers.pool_factor(self.global_pool)

  @property
  def example_size(self) -> tuple[int, int]:
    """`img_size` as a pair."""
    return windows.pair("img_size", self.img_size)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    self._check_size(stage, x)
    if stage == "head":
      return self._head(x)
    if stage == "stem":
      x = windows.PatchEmbed(
        self.embed_dim, self.patch_size, self.dtype, name="stem"
      )(x)
      return x, {"stem": x}
    merge = {"norm_first": self.MERGE_NORM_FIRST, "dtype": self.dtype}
    x = windows.Stage(
      *self.blocks(stage), merge if stage != "stage1" else None, name=stage
    )(x, train=train)
    return x, {stage: x}

  def blocks(
    self, stage: str
  ) -> tuple[type[nn.Module], tuple[dict[str, Any], ...]]:
    """Class and fields of the blocks of 'stage1'..'stage4'."""
    index = STAGES.index(stage) - 1
    done, total = sum(self.depths[:index]), sum(self.depths)
    size = self._map_size(stage)
    target = windows.per_stage("window_size", self.window_size)[index]
    fields = {
      "num_heads": self.num_heads[index],
      "mlp_ratio": self.mlp_ratio,
      "qkv_bias": self.qkv_bias,
      "dtype": self.dtype,
    }
    return Block, tuple(
      {
        **fields,
        "window": windows.fitted(
          target, size, shifted=b % 2 == 1, whole=self.always_partition
        ),
        "drop_path": self.drop_path_rate * (done + b) / max(total - 1, 1),
      }
      for b in range(self.depths[index])
    )

  def _map_size(self, stage: str) -> tuple[int, int]:
    """Size of the map that a stage emits, at `img_size`."""
    halvings = max(STAGES.index(stage) - 1, 0)
    return tuple(
      -(-(side // self.patch_size) // 2**halvings) for side in self.example_size
    )

  def _check_size(self, stage: str, x: Array) -> None:
    got, want = x.shape[1:3], self.example_size
    if stage != "stem":
      want = self._map_size(STAGES[STAGES.index(stage) - 1])
    if self.strict_img_size and got != want:
      raise ValueError(
        f"{stage} reads a size of {want}, got {got}: img_size is "
        f"{self.img_size}. Set img_size, or strict_img_size=False."
      )
    if stage == "stem":
      self._check_patches(got)

  def _check_patches(self, size: tuple[int, ...]) -> None:
    if not self.strict_img_size and any(s % self.patch_size for s in size):
      raise ValueError(
        f"images are {size}; both sides must be multiples of patch_size="
        f"{self.patch_size}"
      )

  def _head(self, x: Array) -> tuple[Array, dict[str, Array]]:
    final = windows.Neck(self.dtype, name="neck")(x)
    logits, taps = backbone.classify(
      self, final, kernel_init=windows.linear_init
    )
    return logits, {"feature": taps["pooled"], "final": final, **taps}
