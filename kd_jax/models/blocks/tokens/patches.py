"""Images as grids of patches, one token each, behind a few prefix tokens.

Position embeddings and patch kernels are resampled as in timm, bicubic with
antialiasing, so that weights serve images and patches of other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

Pair = int | tuple[int, int]

STEM_RULES = (
  ("patch_embed.proj", "params/stem/patch_embed/proj", "conv2d"),
  ("patch_embed.norm", "params/stem/patch_embed/norm", "affine"),
  ("pos_embed", "params/stem/pos_embed", "copy"),
  ("cls_token", "params/stem/cls_token", "copy"),
  ("dist_token", "params/stem/dist_token", "copy"),
  ("reg_token", "params/stem/reg_token", "copy"),
  ("norm_pre", "params/stem/norm_pre", "affine"),
)
"""Conversion rules of `Stem`; the first is the kernel that reads the image."""


class PatchEmbed(nn.Module):
  """One token per patch: a convolution whose stride is its window.

  Attributes:
    features: width of a token.
    patch_size: (height, width) in pixels.
    use_bias: add a bias.
    dtype: compute dtype.
    kernel_init: initialiser of the kernel; None is PyTorch's default.
    bias_init: initialiser of the bias; None is PyTorch's default.
    norm: kind and eps of a normalisation of the tokens, see `layers.NORMS`.
    ragged: see `grid_of`.
    padded: see `grid_of`.
  """

  features: int
  patch_size: tuple[int, int]
  use_bias: bool = True
  dtype: layers.Dtype = None
  kernel_init: initializers.Initializer | None = None
  bias_init: initializers.Initializer | None = None
  norm: tuple[str, float] | None = None
  ragged: bool = False
  padded: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """The map of tokens; parameters `proj`.

    Raises:
      ValueError: the patches do not tile the image.
    """
    (h, w), (a, b) = x.shape[1:3], self.patch_size
    grid_of((h, w), (a, b), ragged=self.ragged, padded=self.padded)
    if self.padded:
      x = jnp.pad(x, ((0, 0), (0, -h % a), (0, -w % b), (0, 0)))
    torch = layers.torch_linear_init(math.prod(self.patch_size) * x.shape[-1])
    x = nn.Conv(
      self.features,
      self.patch_size,
      self.patch_size,
      "VALID",
      use_bias=self.use_bias,
      dtype=self.dtype,
      kernel_init=self.kernel_init or torch,
      bias_init=self.bias_init or torch,
      name="proj",
    )(x)
    if self.norm is None:
      return x
    kind, eps = self.norm
    return layers.NORMS[kind](eps, self.dtype, "norm")(x)


class Stem(nn.Module):
  """Patches, prefix tokens and absolute position embedding.

  The position embedding belongs to `grid`; for an image of another size it is
  resampled, so that any size that the patches tile will do.

  Attributes:
    features: width of a token.
    patch_size: (height, width) in pixels.
    grid: patches of an image, down and across.
    prefix: (name, number, standard deviation of the first values) of each
      kind of prefix token, in order.
    pos: 'all' tokens have a position embedding, or only the 'patches', or
      'none'.
    pre_norm: eps of a layer normalisation at the end; the patches then have
      no bias. None is no normalisation.
    dtype: compute dtype.
    norm: kind of that normalisation, see `layers.NORMS`.
    embed_norm: `PatchEmbed.norm`.
    ragged: see `grid_of`.
    padded: see `grid_of`.
    embedding: class and fields of what makes a map of tokens of images, where
      it is not `PatchEmbed`.
  """

  features: int
  patch_size: tuple[int, int]
  grid: tuple[int, int]
  prefix: tuple[tuple[str, int, float], ...] = ()
  pos: str = "all"
  pre_norm: float | None = None
  dtype: layers.Dtype = None
  norm: str = "layer"
  embed_norm: tuple[str, float] | None = None
  ragged: bool = False
  padded: bool = False
  embedding: tuple[type[nn.Module], Mapping[str, Any]] | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, "n h w c"], **call: Any
  ) -> Float[Array, "n t d"]:
    """The tokens that enter the first block; `embedding` gets the rest."""
    plain = self.pre_norm is None
    kind, fields = self.embedding or self._patches(plain)
    y = kind(**fields, dtype=self.dtype, name="patch_embed")(images, **call)
    grid = y.shape[1], y.shape[2]
    x = y.reshape(len(images), -1, self.features)
    if self.pos == "patches":
      x = x + self._positions(0, grid).astype(x.dtype)
    tokens = [self._token(*token, x) for token in self.prefix]
    x = jnp.concatenate([*tokens, x], axis=1)
    if self.pos == "all":
      count = sum(number for _, number, _ in self.prefix)
      x = x + self._positions(count, grid).astype(x.dtype)
    if self.pre_norm is None:
      return x
    return layers.NORMS[self.norm](self.pre_norm, self.dtype, "norm_pre")(x)

  def _patches(self, plain: bool) -> tuple[type[nn.Module], dict[str, Any]]:
    return PatchEmbed, {
      "features": self.features,
      "patch_size": self.patch_size,
      "use_bias": plain,
      "norm": self.embed_norm,
      "ragged": self.ragged,
      "padded": self.padded,
    }

  def _token(self, name: str, number: int, std: float, x: Array) -> Array:
    shape = (1, number, self.features)
    token = self.param(name, initializers.normal(std), shape, jnp.float32)
    return jnp.broadcast_to(
      token.astype(x.dtype), (len(x), number, self.features)
    )

  def _positions(self, num_prefix_tokens: int, grid: tuple[int, int]) -> Array:
    shape = (1, num_prefix_tokens + math.prod(self.grid), self.features)
    table = self.param(
      "pos_embed", initializers.normal(0.02), shape, jnp.float32
    )
    return resample_positions(
      table, num_prefix_tokens=num_prefix_tokens, old=self.grid, new=grid
    )


def pair(value: Pair) -> tuple[int, int]:
  """(height, width) of a field that may be one number for both."""
  return (value, value) if isinstance(value, int) else value


def grid_of(
  image: tuple[int, ...],
  patch: tuple[int, int],
  *,
  ragged: bool = False,
  padded: bool = False,
) -> tuple[int, int]:
  """Patches of an image, down and across.

  Args:
    image: its size.
    patch: their size.
    ragged: whether pixels at the lower and right edge may be left out.
    padded: whether zeros complete the patches there.

  Raises:
    ValueError: the patches do not tile the image.
  """
  (h, w), (a, b) = image, patch
  if padded and h * w:
    return -(-h // a), -(-w // b)
  if ragged and h >= a and w >= b:
    return h // a, w // b
  if h % a or w % b or not h * w:
    raise ValueError(
      f"patches of {a} x {b} pixels do not tile an image of {h} x {w}. Resize "
      "the image to multiples of the patch; where the model has the field, "
      "dynamic_img_pad=True completes them with zeros."
    )
  return h // a, w // b


def tokens_to_map(
  tokens: Float[Array, "n t d"],
  num_prefix_tokens: int,
  grid: tuple[int, int],
) -> Float[Array, "n h w d"]:
  """The patches as a map, without the prefix tokens.

  Raises:
    ValueError: `grid` does not have as many patches.
  """
  n, t, d = tokens.shape
  if t - num_prefix_tokens != math.prod(grid):
    raise ValueError(
      f"{t} tokens, {num_prefix_tokens} of them prefixes, are no map of "
      f"{grid[0]} x {grid[1]} patches"
    )
  return tokens[:, num_prefix_tokens:].reshape(n, *grid, d)


def pool_tokens(
  x: Float[Array, "n t d"], kind: str, num_prefix_tokens: int
) -> Float[Array, "n d"]:
  """'token' (the first), or 'avg', 'max' or 'avgmax' of the patches."""
  if kind == "token":
    return x[:, 0]
  return layers.global_pool(x[:, None, num_prefix_tokens:], kind)


def resample_positions(
  table: Float[Array, "1 t d"],
  *,
  num_prefix_tokens: int,
  old: tuple[int, int],
  new: tuple[int, int],
) -> Float[Array, "1 s d"]:
  """A position embedding for another grid; works under jit and on arrays.

  Bicubic with antialiasing, as timm's `resample_abs_pos_embed`.

  Args:
    table: first the prefix tokens, which are kept, then the patches by rows.
    num_prefix_tokens: number of entries that are not patches.
    old: grid of the table.
    new: wanted grid.

  Returns:
    The embedding, in float32 at least.
  """
  if old == new:
    return table
  prefix, patches = jnp.split(jnp.asarray(table), [num_prefix_tokens], axis=1)
  width = table.shape[-1]
  maps = jax.image.resize(
    patches.reshape(1, *old, width), (1, *new, width), "bicubic"
  )
  return jnp.concatenate([prefix, maps.reshape(1, -1, width)], axis=1)


def fit_positions(
  table: np.ndarray, shape: tuple[int, ...], num_prefix_tokens: int
) -> np.ndarray:
  """A file's position embedding for a model of another image size.

  Args:
    table: (1, t, d), with or without the prefix tokens.
    shape: that of the model.
    num_prefix_tokens: of the model.

  Returns:
    The table as it is if the numbers of tokens agree, else resampled from the
    square grid of the file to the square grid of the model.

  Raises:
    ValueError: a grid is not square.
  """
  if table.shape[1] == shape[1]:
    return table
  for count in (num_prefix_tokens, 0):
    old, new = (
      math.isqrt(max(t - count, 0)) for t in (len(table[0]), shape[1])
    )
    if old and (old**2 + count, new**2 + count) == (len(table[0]), shape[1]):
      return np.asarray(
        resample_positions(
          jnp.asarray(table, jnp.float32),
          num_prefix_tokens=count,
          old=(old, old),
          new=(new, new),
        )
      )
  raise ValueError(
    f"the position embedding has {table.shape[1]} entries, the model "
    f"{shape[1]}; only square grids are resampled. Load it with the img_size "
    "of the file: images of other sizes are then accepted as they are."
  )


def resample_patch(
  kernel: Float[np.ndarray, "o i h w"], new: tuple[int, int]
) -> Float[np.ndarray, "o i y x"]:
  """A patch kernel for patches of another size (FlexiViT, arXiv:2212.08013).

  The pseudo-inverse of bicubic resizing of the patch, eq. 4 there, as timm's
  `resample_patch_embed`.
  """
  old = kernel.shape[2:]
  if tuple(old) == tuple(new):
    return kernel
  size = math.prod(old)
  basis = np.eye(size, dtype=np.float32).reshape(size, *old)
  resize = np.asarray(jax.image.resize(basis, (size, *new), "bicubic"))
  inverse = np.linalg.pinv(resize.reshape(size, -1).T)
  flat = np.asarray(kernel, np.float32).reshape(*kernel.shape[:2], size)
  return (flat @ inverse).reshape(*kernel.shape[:2], *new)
