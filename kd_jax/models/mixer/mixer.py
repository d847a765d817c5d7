"""MLP-Mixer (arXiv:2105.01601) with timm's names and tokens.

Initialisation: the MLPs uniform by Glorot and Bengio with biases from
N(0, 1e-12), patches LeCun normal, the classifier 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import checks, layers
from kd_jax.models.blocks.tokens import patches, token_net, transformer

# embed_dim, num_blocks.
_SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}

VARIANTS = {
  f"mixer_{size}{patch}_224": {
    "embed_dim": width,
    "num_blocks": depth,
    "patch_size": patch,
  }
  for size, (width, depth) in _SIZES.items()
  for patch in (32, 16)
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
    )
  ),
  ("norm", "params/neck", "affine"),
  ("head", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_EPS = 1e-6


class Stem(nn.Module):
  """Patches as tokens.

  Attributes:
    features: width of a token.
    patch_size: (height, width) in pixels.
    dtype: compute dtype.
  """

  features: int
  patch_size: tuple[int, int]
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
    """Row by row."""
    embed = patches.PatchEmbed(
      self.features,
      self.patch_size,
      dtype=self.dtype,
      kernel_init=initializers.lecun_normal(),
      bias_init=initializers.zeros,
      name="patch_embed",
    )
    return embed(x).reshape(len(x), -1, self.features)


class Block(nn.Module):
  """An MLP over the tokens, then one over the channels.

  Attributes:
    tokens_width: hidden width of the first.
    channels_width: hidden width of the second.
    activation: of both.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  tokens_width: int
  channels_width: int
  activation: Any
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Keeps the shape."""
    y = layers.layer_norm(_EPS, self.dtype, "norm1")(x)
    y = self._mlp(self.tokens_width, "mlp_tokens")(y.swapaxes(1, 2))
    x = x + self._dropped(y.swapaxes(1, 2), train)
    y = layers.layer_norm(_EPS, self.dtype, "norm2")(x)
    y = self._mlp(self.channels_width, "mlp_channels")(y)
    return x + self._dropped(y, train)

  def _mlp(self, width: int, name: str) -> nn.Module:
    kernel, bias = initializers.xavier_uniform(), initializers.normal(1e-6)
    return transformer.Mlp(
      width,
      self.activation,
      dtype=self.dtype,
      kernel_init=kernel,
      bias_init=bias,
      out_init=kernel,
      out_bias_init=bias,
      name=name,
    )

  def _dropped(self, y: Array, train: bool) -> Array:
    if not self.drop_path:
      return y
    return layers.DropPath(self.drop_path)(y, train=train)


class Model(token_net.TokenNet):
  """MLP-Mixer; `VARIANTS` lists the named members.

  Taps of the stages are tokens without a prefix; `blockNN` are those of every
  block, and 'final' comes with the head: the tokens after the last
  normalisation. 'feature' equals 'pooled'. As in timm, `drop_path_rate` holds
  for every block alike.

  Attributes:
    embed_dim: see `token_net.TokenNet`.
    num_blocks: number of blocks, split over the stages as `transformer` says.
    mlp_ratio: hidden widths over that of a token: of the MLP over the tokens
      and of the one over the channels.
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

  num_prefix_tokens: ClassVar[int] = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check_fields(self, depth="num_blocks")
    names = tuple(transformer.ACTIVATIONS)
    backbone.one_of("act_layer", self.act_layer, names)
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
    return Stem(self.embed_dim, size, self.dtype, name="stem")(x)

  def blocks(
    self, numbers: Iterable[int]
  ) -> tuple[type[nn.Module], tuple[tuple[int, dict[str, Any]], ...]]:
    """See `token_net.TokenNet.blocks`."""
    return Block, tuple((i, self._block()) for i in numbers)

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
    return {
      "tokens_width": tokens,
      "channels_width": channels,
      "activation": transformer.ACTIVATIONS[self.act_layer],
      "drop_path": self.drop_path_rate,
      "dtype": self.dtype,
    }

  def classify(
    self, x: Array, num_prefix_tokens: int
  ) -> tuple[Array, dict[str, Array]]:
    """See `token_net.TokenNet.classify`."""
    final = layers.layer_norm(_EPS, self.dtype, "neck")(x)
    pooled = logits = patches.pool_tokens(
      final, self.global_pool, num_prefix_tokens
    )
    if self.num_classes:
      init = initializers.zeros
      logits = nn.Dense(
        self.num_classes, dtype=self.dtype, kernel_init=init, name="head"
      )(pooled)
    taps = {"final": final, "feature": pooled, "pooled": pooled}
    return logits, {**taps, "logits": logits}
