"""The image encoder of Segment Anything (arXiv:2304.02643), with timm's names.

A plain transformer over a map of patches: most blocks attend inside windows, a
few over the whole map, all with relative positions; convolutions make the last
map narrow (arXiv:2203.16527). Images of any size that the patches tile are
accepted: positions are resized as in timm. Initialisation: linear layers
N(0, 0.02^2), positions 0, the rest as PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import checks, layers
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.models.sam import block

_IMAGENET = {"mean": backbone.IMAGENET_MEAN, "std": backbone.IMAGENET_STD}


def _variant(
  width: int,
  depth: int,
  heads: int,
  image: int = 1024,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  """The last block of every quarter attends over the whole map."""
  return {
    "embed_dim": width,
    "depth": depth,
    "num_heads": heads,
    "global_attn_indexes": tuple(k * depth // 4 - 1 for k in (1, 2, 3, 4)),
    "img_size": image,
    "input_size": (3, image, image),
    "num_classes": 0,
    "crop_pct": 1.0,
    **_IMAGENET,
    **more,
  }


VARIANTS = {
  "samvit_base_patch16": _variant(768, 12, 12),
  "samvit_large_patch16": _variant(1024, 24, 16),
  "samvit_huge_patch16": _variant(1280, 32, 16),
  "samvit_base_patch16_224": _variant(
    768,
    12,
    12,
    224,
    use_abs_pos=False,
    neck_chans=None,
    num_classes=1000,
    crop_pct=0.9,
  ),
}

RULES = (
  ("patch_embed.proj", "params/stem/patch_embed/proj", "conv2d"),
  ("pos_embed", "params/stem/pos_embed", "copy"),
  *transformer.BLOCK_RULES,
  *(
    (
      f"blocks.{{b}}.attn.{name}",
      f"params/stage{{s}}/block{{b}}/attn/{name}",
      "copy",
    )
    for name in ("rel_pos_h", "rel_pos_w")
  ),
  ("neck.0.weight", "params/neck/conv1/kernel", "conv"),
  ("neck.1", "params/neck/norm1", "affine"),
  ("neck.2.weight", "params/neck/conv2/kernel", "conv"),
  ("neck.3", "params/neck/norm2", "affine"),
  ("neck", "params/neck/norm", "affine"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_NECK_EPS = 1e-6


class Stem(nn.Module):
  """Patches with their positions.

  Attributes:
    features: width of a patch.
    patch_size: (height, width) in pixels.
    grid: patches down and across that the positions are made for; None has no
      positions.
    dtype: compute dtype.
  """

  features: int
  patch_size: tuple[int, int]
  grid: tuple[int, int] | None
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, images: Float[Array, "n h w c"]
  ) -> Float[Array, "n y x d"]:
    """The map that enters the first block."""
    x = patches.PatchEmbed(
      self.features, self.patch_size, dtype=self.dtype, name="patch_embed"
    )(images)
    if self.grid is None:
      return x
    shape = (1, *self.grid, self.features)
    table = self.param("pos_embed", initializers.zeros, shape, jnp.float32)
    table = patches.resample_positions(
      table.reshape(1, -1, self.features),
      num_prefix_tokens=0,
      old=self.grid,
      new=(x.shape[1], x.shape[2]),
    )
    return x + table.reshape(1, *x.shape[1:]).astype(x.dtype)


class Neck(nn.Module):
  """Two convolutions, each normalised; or a normalisation alone.

  Attributes:
    features: width of the convolutions; None has none.
    dtype: compute dtype.
  """

  features: int | None
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h w c"]:
    """The last map."""
    if self.features is None:
      return layers.layer_norm(_NECK_EPS, self.dtype, "norm")(x)
    for number, side in ((1, 1), (2, 3)):
      x = nn.Conv(
        self.features,
        (side, side),
        padding="SAME",
        use_bias=False,
        dtype=self.dtype,
        kernel_init=layers.torch_linear_init(side**2 * x.shape[-1]),
        name=f"conv{number}",
      )(x)
      x = layers.layer_norm(_NECK_EPS, self.dtype, f"norm{number}")(x)
    return x


class Model(backbone.Backbone):
  """SAM's encoder; `VARIANTS` lists the named members.

  Taps of the stages and blocks ('block00', ...) are maps; `transformer` says
  how the blocks are split over the stages. 'final' comes with the head: the map
  behind the neck, which is pooled. 'feature' equals 'pooled'.

  Attributes:
    interpolation: see `Backbone`.
    img_size: size of the images that positions are made for, one number or
      (height, width); others are accepted.
    patch_size: one number or (height, width), in pixels.
    embed_dim: width of a patch.
    depth: number of blocks.
    num_heads: number of attention heads.
    mlp_ratio: width of the MLP over that of a patch.
    qkv_bias: add a bias to query, key and value.
    qk_norm: normalise query and key per head.
    init_values: first value of the scale of each branch; None has no scales.
    use_abs_pos: add positions to the patches.
    use_rel_pos: have relative positions in every block.
    window_size: side of the windows, in patches.
    global_attn_indexes: numbers of the blocks that attend over the whole map.
    neck_chans: width of the last map; None keeps it.
    norm_eps: of the layer normalisations in the blocks.
  """

  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  NO_DECAY: ClassVar[tuple[str, ...]] = ("pos_embed",)

  interpolation: str = "bicubic"
  img_size: int | tuple[int, int] = 1024
  patch_size: int | tuple[int, int] = 16
  embed_dim: int = 768
  depth: int = 12
  num_heads: int = 12
  mlp_ratio: float = 4.0
  qkv_bias: bool = True
  qk_norm: bool = False
  init_values: float | None = None
  use_abs_pos: bool = True
  use_rel_pos: bool = True
  window_size: int = 14
  global_attn_indexes: tuple[int, ...] = ()
  neck_chans: int | None = 256
  norm_eps: float = 1e-5

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check_fields(self)
    for name in ("window_size", "mlp_ratio"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")
    if self.neck_chans is not None and self.neck_chans < 1:
      raise ValueError(
        f"neck_chans is {self.neck_chans}; it must be > 0, or None"
      )
    outside = [i for i in self.global_attn_indexes if not 0 <= i < self.depth]
    if outside:
      raise ValueError(
        f"global_attn_indexes has {outside}; the blocks are 0 to "
        f"{self.depth - 1}. Set it together with depth."
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = self.neck_chans or self.embed_dim
    return width * layers.pool_factor(self.global_pool)

  @property
  def example_size(self) -> tuple[int, int]:
    """`img_size` as a pair."""
    return patches.pair(self.img_size)

  @property
  def _grid(self) -> tuple[int, int]:
    return patches.grid_of(self.example_size, patches.pair(self.patch_size))

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      x = Stem(
        self.embed_dim,
        patches.pair(self.patch_size),
        self._grid if self.use_abs_pos else None,
        self.dtype,
        name="stem",
      )(x)
      return x, {"stem": x}
    if stage == "head":
      final = Neck(self.neck_chans, self.dtype, name="neck")(x)
      logits, taps = backbone.classify(
        self, final, kernel_init=transformer.INIT
      )
      return logits, {"final": final, "feature": taps["pooled"], **taps}
    numbers = transformer.blocks_of(stage, self.depth)
    blocks = tuple((i, self._block(i)) for i in numbers)
    x, taps = transformer.Stage(block.Block, blocks, name=stage)(x, train=train)
    return x, {**taps, stage: x}

  def _block(self, number: int) -> dict[str, Any]:
    window = 0 if number in self.global_attn_indexes else self.window_size
    table = (window, window) if window else self._grid
    return {
      "attn": {
        "num_heads": self.num_heads,
        "qkv_bias": self.qkv_bias,
        "qk_norm": self.qk_norm,
        "eps": self.norm_eps,
      },
      "mlp": {"width": int(self.embed_dim * self.mlp_ratio)},
      "window": window,
      "table": table if self.use_rel_pos else None,
      "eps": self.norm_eps,
      "init_values": self.init_values,
      "drop_path": self.drop_path_rate * number / (self.depth - 1),
      "dtype": self.dtype,
    }


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The encoder of an original file, with timm's names."""
  del shapes
  prefix = "image_encoder."
  if prefix + "patch_embed.proj.weight" not in state_dict:
    return dict(state_dict)
  return {
    name.removeprefix(prefix).replace("mlp.lin", "mlp.fc"): value
    for name, value in state_dict.items()
    if name.startswith(prefix)
  }
