"""MLP-Mixer (arXiv:2105.01601), ResMLP and gMLP with timm's names and tokens.

ResMLP (arXiv:2105.03404), gMLP (2105.08050), and timm's gMixer, whose MLPs are
gated. Initialisation: the MLPs uniform by Glorot and Bengio with biases from
N(0, 1e-12), patches LeCun normal, the classifier 0; gates begin near 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import checks, layers
from kd_jax.models.blocks.tokens import patches, token_net, transformer
from kd_jax.models.mixer import blocks

# embed_dim, num_blocks.
_SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}

_MIXERS = {
  f"mixer_{size}{patch}_224": {
    "embed_dim": width,
    "num_blocks": depth,
    "patch_size": patch,
  }
  for size, (width, depth) in _SIZES.items()
  for patch in (32, 16)
}
_IMAGENET: dict[str, Any] = {
  "mean": backbone.IMAGENET_MEAN,
  "std": backbone.IMAGENET_STD,
}


def _gmixer(depth: int) -> dict[str, Any]:
  return {
    "num_blocks": depth,
    "embed_dim": 384,
    "mlp_ratio": (1.0, 4.0),
    "mlp_layer": "glu",
    "act_layer": "silu",
    **_IMAGENET,
  }


def _resmlp(
  depth: int, first: float, **more: backbone.FieldValue
) -> dict[str, Any]:
  return {
    "block_layer": "resmlp",
    "num_blocks": depth,
    "embed_dim": 384,
    "init_values": first,
    **_IMAGENET,
    **more,
  }


def _gmlp(width: int) -> dict[str, Any]:
  return {
    "block_layer": "gmlp",
    "num_blocks": 30,
    "embed_dim": width,
    "mlp_ratio": (0.5, 6.0),
  }


VARIANTS = {
  **_MIXERS,
  "gmixer_12_224": _gmixer(12),
  "gmixer_24_224": _gmixer(24),
  "resmlp_12_224": _resmlp(12, 1e-4),
  "resmlp_24_224": _resmlp(24, 1e-5),
  "resmlp_36_224": _resmlp(36, 1e-6),
  "resmlp_big_24_224": _resmlp(24, 1e-6, embed_dim=768, patch_size=8),
  "gmlp_ti16_224": _gmlp(128),
  "gmlp_s16_224": _gmlp(256),
  "gmlp_b16_224": _gmlp(512),
}

_BLOCK = "params/stage{s}/block{b}/"
RULES = (
  ("stem.proj", "params/stem/patch_embed/proj", "conv2d"),
  *(
    (f"blocks.{{b}}.{name}", _BLOCK + name.replace(".", "/"), layout)
    for name, layout in (
      ("norm1", "affine"),
      ("mlp_tokens.fc1", "dense"),
      ("mlp_tokens.fc2", "dense"),
      ("norm2", "affine"),
      ("mlp_channels.fc1", "dense"),
      ("mlp_channels.fc2", "dense"),
      ("linear_tokens", "dense"),
    )
  ),
  *(
    (f"blocks.{{b}}.{theirs}", _BLOCK + ours, layout)
    for theirs, ours, layout in (
      ("norm{i}.alpha", "norm{i}/alpha", "copy"),
      ("norm{i}.beta", "norm{i}/beta", "copy"),
      ("ls{i}", "ls{i}/gamma", "copy"),
      ("norm", "norm", "affine"),
      ("mlp_channels.fc{i}", "fc{i}", "dense"),
      ("mlp_channels.gate.norm", "gate_norm", "affine"),
      ("mlp_channels.gate.proj", "gate_proj", "dense"),
    )
  ),
  ("norm", "params/neck", "affine"),
  ("norm.alpha", "params/neck/alpha", "copy"),
  ("norm.beta", "params/neck/beta", "copy"),
  ("head", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_BLOCKS: dict[str, type[nn.Module]] = {
  "mixer": blocks.Block,
  "resmlp": blocks.ResMlp,
  "gmlp": blocks.GatedMlp,
}


class Model(token_net.TokenNet):
  """Networks of MLPs; `VARIANTS` lists the named members.

  Taps of the stages are tokens without a prefix; `blockNN` are those of every
  block, and 'final' comes with the head: the tokens after the last
  normalisation. 'feature' equals 'pooled'. As in timm, `drop_path_rate` holds
  for every block alike.

  Attributes:
    embed_dim: see `token_net.TokenNet`.
    num_blocks: number of blocks, split over the stages as `transformer` says.
    mlp_ratio: hidden widths over that of a token: of the MLP over the tokens
      and of the one over the channels. Other blocks than 'mixer' have only
      the latter.
    block_layer: 'mixer', 'resmlp' or 'gmlp', see `blocks`.
    mlp_layer: 'mlp', or 'glu': gated MLPs in the blocks 'mixer'.
    init_values: first value of the scale of each branch of the blocks
      'resmlp'.
    act_layer: one of `transformer.ACTIVATIONS`.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg",)

  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.5, 0.5, 0.5)
  interpolation: str = "bicubic"
  embed_dim: int = 512
  num_blocks: int = 8
  mlp_ratio: tuple[float, ...] = (0.5, 4.0)
  act_layer: str = "gelu"
  block_layer: str = "mixer"
  mlp_layer: str = "mlp"
  init_values: float = 1e-4

  num_prefix_tokens: ClassVar[int] = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check_fields(self, depth="num_blocks")
    names = tuple(transformer.ACTIVATIONS)
    backbone.one_of("act_layer", self.act_layer, names)
    backbone.one_of("block_layer", self.block_layer, _BLOCKS)
    backbone.one_of("mlp_layer", self.mlp_layer, ("mlp", "glu"))
    if self.mlp_layer == "glu" and self.block_layer != "mixer":
      raise ValueError("mlp_layer='glu' needs block_layer='mixer'")
    ratio = self.mlp_ratio
    if len(ratio) != 2 or not all(r * self.embed_dim >= 1 for r in ratio):
      raise ValueError(
        f"mlp_ratio is {ratio}; it must be two numbers that give widths of 1 "
        f"or more with embed_dim={self.embed_dim}"
      )

  @property
  def depth(self) -> int:
    """`num_blocks`, as other families call it."""
    return self.num_blocks

  def embed(self, x: Array) -> Array:
    """See `token_net.TokenNet.embed`."""
    self._check_size(x.shape[1:3])
    size = patches.pair(self.patch_size)
    return blocks.Stem(self.embed_dim, size, self.dtype, name="stem")(x)

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    kind = _BLOCKS[self.block_layer]
    return kind, tuple((i, self._block()) for i in numbers)

  def _check_size(self, size: tuple[int, ...]) -> None:
    wanted = self.example_size
    if size != wanted:
      raise ValueError(
        f"this Mixer takes images of {wanted[0]} x {wanted[1]}, got "
        f"{size[0]} x {size[1]}: its weights depend on the number of patches. "
        "Resize the images, or set img_size."
      )

  def _block(self) -> dict[str, Any]:
    tokens, channels = (int(r * self.embed_dim) for r in self.mlp_ratio)
    shared = {
      "activation": transformer.ACTIVATIONS[self.act_layer],
      "drop_path": self.drop_path_rate,
      "dtype": self.dtype,
    }
    if self.block_layer == "gmlp":
      return {"width": channels, **shared}
    if self.block_layer == "resmlp":
      return {"width": channels, "init_values": self.init_values, **shared}
    widths = {"tokens_width": tokens, "channels_width": channels}
    return {**widths, "gated": self.mlp_layer == "glu", **shared}

  def classify(
    self, x: Array, num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.classify`."""
    if self.block_layer == "resmlp":
      final = blocks.Affine(self.dtype, name="neck")(x)
    else:
      final = layers.layer_norm(blocks.EPS, self.dtype, "neck")(x)
    pooled = logits = patches.pool_tokens(
      final, self.global_pool, num_prefix_tokens
    )
    if self.num_classes:
      init = initializers.zeros
      logits = layers.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=init, name="head"
      )(pooled)
    taps = {"final": final, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The files of ResMLP's authors, with timm's names."""
  del shapes
  if "patch_embed.proj.weight" not in state_dict:
    return dict(state_dict)
  out = {}
  for name, value in state_dict.items():
    for theirs, timm in _ORIGINAL:
      name = name.replace(theirs, timm)
    if name.endswith((".alpha", ".beta")):
      value = np.reshape(value, (1, 1, -1))
    out[name] = value
  return out


_ORIGINAL = (
  ("patch_embed.", "stem."),
  ("attn.", "linear_tokens."),
  ("mlp.", "mlp_channels."),
  ("gamma_", "ls"),
)
