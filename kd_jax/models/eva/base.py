"""What BEiT and EVA share: stem, stages, pooling, classifier, old files.

Blocks are split over the stages as `transformer` says. Initialisation: linear
layers, class token and position embedding N(0, 0.02^2), biases 0, the last
layer of branch i of the network over sqrt(2 (i + 1)), classifier
N(0, (2e-5)^2), patches as PyTorch's convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import checks, layers
from kd_jax.models.blocks.tokens import patches, token_net, window_checkpoints

EPS = 1e-6
"""Of all layer normalisations."""

RULES = (
  *patches.STEM_RULES,
  ("norm", "params/neck/norm", "affine"),
  ("fc_norm", "params/neck/fc_norm", "affine"),
  ("head", "params/head", "dense"),
)
"""Conversion rules of all but the blocks."""

BLOCK = "params/stage{s}/block{b}/"
"""Path of a block in the rules."""

_TABLE = "relative_position_bias_table"
_CLASS_ENTRIES = 3


class Norm(nn.Module):
  """The last layer normalisation.

  Attributes:
    inner: 'norm' of the tokens, or 'fc_norm' of what they are pooled to.
    dtype: compute dtype.
    kind: of the normalisation, see `layers.NORMS`.
    eps: of the normalisation.
  """

  inner: str
  dtype: layers.Dtype
  kind: str = "layer"
  eps: float = EPS

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Normalises."""
    return layers.NORMS[self.kind](self.eps, self.dtype, self.inner)(x)


class Model(token_net.TokenNet):
  """Tokens of a fixed grid that run through equal blocks.

  A family subclasses it and defines `blocks`. Taps of the stages are tokens,
  the class token first; `blockNN` are those of every block, and 'final' comes
  with the head: the tokens that are pooled. 'feature' equals 'pooled'.

  Images must have the size `img_size` unless `any_image` holds.

  Attributes:
    depth: number of blocks.
    num_heads: number of attention heads.
    qkv_bias: add a bias to query and value.
    mlp_ratio: width of the MLP over that of a token.
    init_values: first value of the scale of each branch; None has no scales.
    use_abs_pos_emb: have a position embedding of all tokens.
    use_fc_norm: normalise after pooling instead of before; None does so for
      'avg'.
  """

  POOLS: ClassVar[tuple[str, ...]] = ("avg", "token")
  NO_DECAY: ClassVar[tuple[str, ...]] = ("pos_embed", "cls_token", _TABLE)

  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  depth: int = 12
  num_heads: int = 12
  qkv_bias: bool = True
  mlp_ratio: float = 4.0
  init_values: float | None = None
  use_abs_pos_emb: bool = True
  use_fc_norm: bool | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check_fields(self)
    backbone.one_of("use_fc_norm", self.use_fc_norm, (None, True, False))
    if not self.mlp_ratio > 0:
      raise ValueError(f"mlp_ratio is {self.mlp_ratio}; it must be > 0")

  @property
  def num_prefix_tokens(self) -> int:
    """Tokens before those of the patches."""
    return 1

  @property
  def any_image(self) -> bool:
    """Whether images of any size that the patches tile are taken."""
    return False

  def embed(self, x: Array) -> Array:
    """See `token_net.TokenNet.embed`."""
    if x.shape[1:3] != self.example_size and not self.any_image:
      raise ValueError(
        f"images are {x.shape[1:3]}, the model has img_size={self.img_size}. "
        "Set img_size to the size of the images."
      )
    return self.make_stem()(x)

  def make_stem(self) -> patches.Stem:
    """What makes tokens of images."""
    return patches.Stem(
      self.embed_dim,
      patches.pair(self.patch_size),
      self.grid,
      (("cls_token", 1, 0.02),) * self.num_prefix_tokens,
      "all" if self.use_abs_pos_emb else "none",
      dtype=self.dtype,
      name="stem",
    )

  def classify(
    self, x: Array, num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.classify`."""
    norm = self.last_norm()
    after = norm if norm is not None and norm.inner == "fc_norm" else None
    final = x if norm is None or after is not None else norm(x)
    pooled = self.pooled(final, num_prefix_tokens)
    pooled = logits = pooled if after is None else after(pooled)
    if self.num_classes:
      init = initializers.normal(2e-5)
      logits = layers.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=init, name="head"
      )(pooled)
    taps = {"final": final, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}

  def last_norm(self) -> Norm | None:
    """The last normalisation."""
    inner = "fc_norm" if self.norms_after() else "norm"
    return Norm(inner, self.dtype, name="neck")

  def norms_after(self) -> bool:
    """Whether what is pooled is normalised."""
    if self.use_fc_norm is None:
      return self.global_pool == "avg"
    return self.use_fc_norm

  def pooled(self, x: Array, num_prefix_tokens: int) -> Array:
    """One vector per image."""
    return patches.pool_tokens(x, self.global_pool, num_prefix_tokens)

  def drop_path_of(self, number: int) -> float:
    """Probability of dropping a branch of a block."""
    return self.drop_path_rate * number / (self.depth - 1)


def out_init(number: int) -> initializers.Initializer:
  """Of the last layer of a branch of block `number`."""
  return initializers.normal(0.02 / math.sqrt(2 * (number + 1)))


def fit(
  name: str,
  value: np.ndarray,
  shapes: Mapping[str, tuple[int, ...]],
  *,
  num_prefix_tokens: int = 1,
) -> np.ndarray:
  """A file's tensor for a model of another image or patch size.

  Args:
    name: of the tensor, in timm.
    value: the tensor.
    shapes: {timm name: shape} of the model.
    num_prefix_tokens: entries of the position embedding before the patches.

  Returns:
    The tensor, resized if it is a patch kernel, a position embedding or a
    table of relative positions.

  Raises:
    ValueError: a grid is not square.
  """
  want = shapes.get(name)
  if want is None or np.shape(value) == want or np.ndim(value) != len(want):
    return value
  if name == "patch_embed.proj.weight":
    return patches.resample_patch(value, (want[2], want[3]))
  if name == "pos_embed":
    return patches.fit_positions(value, want, num_prefix_tokens)
  if name.endswith(_TABLE):
    return window_checkpoints.resize_table(value, want[0], _CLASS_ENTRIES)
  return value
