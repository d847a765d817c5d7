"""XCiT: cross-covariance image transformers (arXiv:2106.09681), as in timm.

Attention is between channels, so that its cost is linear in the number of
patches; convolutions let neighbours see each other, and a class token reads
the last map through two blocks of class attention. Initialisation: linear
layers and class token N(0, 0.02^2), convolutions as in PyTorch.

Example:
  model = create_model("xcit_tiny_12_p16_224", num_classes=0)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  maps = model.apply(variables, images, end="stage4")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks.tokens import class_attention, patches, transformer
from kd_jax.models.xcit import blocks

# embed_dim, num_heads and depths.
_SIZES = {
  "nano": (128, 4, (12,)),
  "tiny": (192, 4, (12, 24)),
  "small": (384, 8, (12, 24)),
  "medium": (512, 8, (24,)),
  "large": (768, 16, (24,)),
}

VARIANTS = {
  f"xcit_{size}_{depth}_p{patch}_{image}": {
    "patch_size": patch,
    "embed_dim": width,
    "num_heads": heads,
    "depth": depth,
    "eta": 1.0 if depth == 12 else 1e-5,
    "tokens_norm": size != "nano",
    "input_size": (3, image, image),
  }
  for size, (width, heads, depths) in _SIZES.items()
  for depth in depths
  for patch in (16, 8)
  for image in (224, 384)
}

_BLOCK = "params/stage{s}/block{b}/"
_CLASS = "params/neck/block{i}/"
RULES = (
  ("patch_embed.proj.{i}.0.weight", "params/stem/conv{i}/kernel", "conv"),
  ("patch_embed.proj.{i}.1", "params/stem/bn{i}", "norm"),
  ("pos_embed.token_projection", "params/stem/positions", "conv2d"),
  ("cls_token", "params/neck/cls_token", "copy"),
  *transformer.BLOCK_RULES,
  ("blocks.{b}.attn.temperature", _BLOCK + "attn/temperature", "copy"),
  ("blocks.{b}.norm3", _BLOCK + "norm3", "affine"),
  ("blocks.{b}.local_mp.conv{c}", _BLOCK + "local/conv{c}", "conv2d"),
  ("blocks.{b}.local_mp.bn", _BLOCK + "local/bn", "norm"),
  ("blocks.{b}.gamma{g}", _BLOCK + "gamma{g}", "copy"),
  *(
    (f"cls_attn_blocks.{{i}}.{name}", _CLASS + name.replace(".", "/"), layout)
    for name, layout in (
      ("norm1", "affine"),
      ("norm2", "affine"),
      *((f"attn.{part}", "dense") for part in class_attention.PARTS),
      ("mlp.fc1", "dense"),
      ("mlp.fc2", "dense"),
      ("gamma{g}", "copy"),
    )
  ),
  ("norm", "params/neck/norm", "affine"),
  ("head", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(backbone.Backbone):
  """XCiT; `VARIANTS` lists the named members.

  Taps of the stages and blocks ('block00', ...) are maps; `transformer` says
  how the blocks are split over the stages. 'final' comes with the head: the
  map behind the last normalisation, without the class token. 'feature' equals
  'pooled'. As in timm, `drop_path_rate` holds for every block alike.

  Attributes:
    global_pool: 'token', or 'avg' of the other tokens.
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    patch_size: 16 or 8, in pixels.
    embed_dim: width of a patch.
    depth: number of blocks.
    num_heads: number of attention heads.
    mlp_ratio: width of the MLPs over that of a patch.
    qkv_bias: add a bias to query, key and value.
    cls_attn_layers: number of blocks of class attention.
    use_pos_embed: add positions to the patches.
    eta: first value of the scale of each branch.
    tokens_norm: blocks of class attention normalise all tokens.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("token", "avg")
  PARTITION: ClassVar[tuple[tuple[str, int], ...]] = transformer.PARTITION
  NO_DECAY: ClassVar[tuple[str, ...]] = ("positions", "cls_token")

  global_pool: str = "token"
  interpolation: str = "bicubic"
  crop_pct: float = 1.0
  patch_size: int = 16
  embed_dim: int = 384
  depth: int = 12
  num_heads: int = 8
  mlp_ratio: float = 4.0
  qkv_bias: bool = True
  cls_attn_layers: int = 2
  use_pos_embed: bool = True
  eta: float = 1.0
  tokens_norm: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("patch_size", self.patch_size, (16, 8))
    if self.depth < 4:
      raise ValueError(
        f"depth is {self.depth}; it must be 4 or more, one block per stage"
      )
    if self.embed_dim < 1 or self.embed_dim % 8:
      raise ValueError(
        f"embed_dim is {self.embed_dim}; it must be a positive multiple of 8"
      )
    if self.num_heads < 1 or self.embed_dim % self.num_heads:
      raise ValueError(
        f"num_heads is {self.num_heads}; it must divide embed_dim="
        f"{self.embed_dim}"
      )
    for name in ("mlp_ratio", "cls_attn_layers"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.embed_dim

  def run_stage(
    self, stage: str, x: Array, *, train: bool, **start: Any
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      stem = blocks.Stem(
        self.embed_dim,
        self.patch_size,
        self.use_pos_embed,
        self.dtype,
        name="stem",
      )
      x = stem(x, train=train)
      return x, {"stem": x}
    if stage == "head":
      return self._head(x)
    fields = {
      **self._shared(),
      "drop_path": self.drop_path_rate,
      "dtype": self.dtype,
    }
    numbers = transformer.blocks_of(stage, self.depth)
    named = tuple((i, fields) for i in numbers)
    x, taps = transformer.Stage(blocks.Block, named, name=stage)(x, train=train)
    return x, {**taps, stage: x}

  def _shared(self) -> dict[str, Any]:
    return {
      "num_heads": self.num_heads,
      "mlp_ratio": self.mlp_ratio,
      "qkv_bias": self.qkv_bias,
      "eta": self.eta,
    }

  def _head(self, x: Array) -> tuple[Array, dict[str, Array]]:
    final = blocks.Neck(
      self.cls_attn_layers,
      **self._shared(),
      tokens_norm=self.tokens_norm,
      dtype=self.dtype,
      name="neck",
    )(x)
    pooled = logits = patches.pool_tokens(final, self.global_pool, 1)
    if self.num_classes:
      logits = nn.Dense(
        self.num_classes,
        dtype=self.dtype,
        kernel_init=transformer.INIT,
        name="head",
      )(pooled)
    last = final[:, 1:].reshape(x.shape)
    taps = {"final": last, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The authors' files, with timm's names: query, key and value apart."""
  out = {}
  for name, value in state_dict.items():
    name = name.replace("pos_embeder.", "pos_embed.")
    head, _, tail = name.partition(".attn.qkv.")
    if name.startswith("cls_attn_blocks.") and tail and name not in shapes:
      parts = np.split(np.asarray(value), 3)
      out.update(
        {
          f"{head}.attn.{k}.{tail}": v
          for k, v in zip("qkv", parts, strict=True)
        }
      )
    else:
      out[name] = value
  return out
