"""Window attention, and what Swin and Swin V2 share.

A map is cut into windows, attention stays inside them, and every other block
shifts the map by half a window (arXiv:2103.14030, section 3.2). Everything
that depends on sizes alone is a NumPy constant of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

EPS = 1e-5
"""Of all layer normalisations."""

linear_init = initializers.normal(0.02)
"""Of all linear layers; timm truncates it at 100 standard deviations."""

_BLOCKED = -100.0

Sides = int | tuple[Any, ...] | list[Any]
"""A side, or (height, width); or one of either per stage. Users set it."""

_Map = TypeVar("_Map", Array, np.ndarray)


class Window(NamedTuple):
  """Window of a block.

  Attributes:
    size: height and width, in pixels of the map.
    shift: how far the map is rolled up and left before it is cut.
  """

  size: tuple[int, int]
  shift: tuple[int, int]


Attend = Callable[[Array, np.ndarray | None], Array]
"""(tokens (n, windows, l, d), (windows, l, l) True where a pair is blocked or
None) -> tokens."""


def attend(
  x: Float[Array, "n h w d"], window: Window, attention: Attend
) -> Float[Array, "n h w d"]:
  """Rolls, pads with zeros below and right, attends per window, undoes it."""
  height, width = x.shape[1:3]
  shifted = any(window.shift)
  if shifted:
    x = jnp.roll(x, [-s for s in window.shift], (1, 2))
  pads = [(0, -n % s) for n, s in zip(x.shape[1:3], window.size, strict=True)]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  padded = x.shape[1:3]
  x = attention(cut(x, window.size), blocked(padded, window))
  x = join(x, window.size, padded)[:, :height, :width]
  return jnp.roll(x, window.shift, (1, 2)) if shifted else x


def blocked(size: tuple[int, ...], window: Window) -> np.ndarray | None:
  """Pairs of a window that are no neighbours before the shift.

  Args:
    size: of the padded map.
    window: of the block.

  Returns:
    (windows, l, l) bool; None without a shift.
  """
  if not any(window.shift):
    return None
  rows, columns = (
    _regions(*sizes) for sizes in zip(size, *window, strict=True)
  )
  regions = cut((3 * rows[:, None] + columns)[None, ..., None], window.size)
  regions = regions[0, ..., 0]
  return regions[:, :, None] != regions[:, None]


def _regions(length: int, size: int, shift: int) -> np.ndarray:
  """0, 1 or 2 for what lies together along one axis."""
  place = np.arange(length)
  if not shift:
    return np.zeros_like(place)
  return (place >= length - size).astype(int) + (place >= length - shift)


def cut(x: _Map, size: tuple[int, int]) -> _Map:
  """(n, h, w, d) to windows of tokens, (n, windows, l, d)."""
  n, height, width, d = x.shape
  h, w = size
  x = x.reshape(n, height // h, h, width // w, w, d)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, h * w, d)


def join(x: Array, size: tuple[int, int], padded: tuple[int, ...]) -> Array:
  """The inverse of `cut`, for a map of the size `padded`."""
  n, d = x.shape[0], x.shape[-1]
  (height, width), (h, w) = padded, size
  x = x.reshape(n, height // h, width // w, h, w, d)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, d)


def softmax_attention(
  logits: Float[Array, "n m h q k"],
  value: Float[Array, "n m k h d"],
  mask: np.ndarray | None,
) -> Float[Array, "n m q hd"]:
  """Mixes `value`; blocked pairs lose 100. Heads are joined."""
  if mask is not None:
    penalty = jnp.where(mask, _BLOCKED, 0.0).astype(logits.dtype)
    logits = logits + penalty[:, None]
  weights = jax.nn.softmax(logits).astype(value.dtype)
  mixed = jnp.einsum("nmhqk,nmkhd->nmqhd", weights, value)
  return mixed.reshape(*mixed.shape[:3], -1)


def wide(dtype: DTypeLike) -> jnp.dtype:
  """`dtype`, but at least float32: for logits and softmax."""
  return jnp.promote_types(dtype, jnp.float32)


def relative_index(size: tuple[int, int]) -> np.ndarray:
  """Row of a table of relative positions, per pair of a window.

  Args:
    size: height h and width w of the window.

  Returns:
    (h w, h w) integers below (2 h - 1) (2 w - 1).
  """
  rows, columns = (axis.ravel() for axis in np.indices(size))
  down = rows[:, None] - rows + size[0] - 1
  right = columns[:, None] - columns + size[1] - 1
  return down * (2 * size[1] - 1) + right


def table_length(size: tuple[int, int]) -> int:
  """Number of relative positions in a window."""
  return (2 * size[0] - 1) * (2 * size[1] - 1)


class PatchEmbed(nn.Module):
  """Patches as tokens, normalised.

  Attributes:
    features: width of a token.
    patch: side of a patch.
    dtype: compute dtype.
  """

  features: int
  patch: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Leaves out the rest of a row or column that fills no patch."""
    init = layers.torch_linear_init(self.patch**2 * x.shape[-1])
    side = (self.patch, self.patch)
    conv = nn.Conv(
      self.features,
      side,
      side,
      "VALID",
      dtype=self.dtype,
      kernel_init=init,
      bias_init=init,
      name="proj",
    )
    return layers.layer_norm(EPS, self.dtype, "norm")(conv(x))


class PatchMerging(nn.Module):
  """Halves the map and doubles the width.

  Attributes:
    norm_first: normalise the 2x2 patches instead of the result.
    dtype: compute dtype.
  """

  norm_first: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n y x c"]:
    """A zero row or column completes odd sizes."""
    n, height, width, d = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(n, -(-height // 2), 2, -(-width // 2), 2, d)
    # Columns before rows, as the original concatenates its four slices.
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(*x.shape[:2], x.shape[3], 4 * d)
    norm = layers.layer_norm(EPS, self.dtype, "norm")
    reduction = layers.Dense(
      2 * d,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=linear_init,
      name="reduction",
    )
    return reduction(norm(x)) if self.norm_first else norm(reduction(x))


class Mlp(nn.Module):
  """Two linear layers with an exact GELU in between.

  Attributes:
    ratio: hidden width over outer width.
    dtype: compute dtype.
  """

  ratio: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Parameters `fc1` and `fc2`."""
    d = x.shape[-1]
    options = {"dtype": self.dtype, "kernel_init": linear_init}
    x = layers.Dense(int(d * self.ratio), name="fc1", **options)(x)
    x = nn.gelu(x, approximate=False)
    return layers.Dense(d, name="fc2", **options)(x)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    block: the class of the blocks.
    fields: the fields of each block.
    merge: fields of the `PatchMerging` in front, or None.
  """

  block: type[nn.Module]
  fields: tuple[Mapping[str, Any], ...]
  merge: Mapping[str, Any] | None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """The map of the last block."""
    if self.merge is not None:
      x = PatchMerging(**self.merge, name="downsample")(x)
    for i, fields in enumerate(self.fields):
      x = self.block(**fields, name=f"block{i}")(x, train=train)
    return x


class Neck(nn.Module):
  """The last normalisation.

  Attributes:
    dtype: compute dtype.
  """

  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h w d"]:
    """Parameters under `norm`."""
    return layers.layer_norm(EPS, self.dtype, "norm")(x)


def fitted(
  target: tuple[int, int], size: tuple[int, int], *, shifted: bool, whole: bool
) -> Window:
  """The window of a block, as timm chooses it.

  Args:
    target: wanted size.
    size: of the map; a larger window is reduced to it.
    shifted: roll by half the wanted size along axes that one window does not
      cover.
    whole: take `target` as it is, and always roll.

  Returns:
    The window.
  """
  shift = (target[0] // 2, target[1] // 2) if shifted else (0, 0)
  if whole:
    return Window(target, shift)
  (height, down), (width, right) = (
    (min(n, t), 0 if n <= t else s)
    for n, t, s in zip(size, target, shift, strict=True)
  )
  return Window((height, width), (down, right))


def pair(name: str, value: Sides) -> tuple[int, int]:
  """A side, or (height, width), as a pair.

  Raises:
    ValueError: it is neither.
  """
  sides = tuple(value) if isinstance(value, tuple | list) else (value, value)
  good = len(sides) == 2 and all(isinstance(s, int) and s > 0 for s in sides)
  if not good:
    raise ValueError(
      f"{name} is {value!r}; it must be a positive integer or a pair of them"
    )
  return sides


def per_stage(name: str, value: Sides) -> tuple[tuple[int, int], ...]:
  """A side, a pair, or one of either for each of 4 stages, as 4 pairs.

  Raises:
    ValueError: it is none of these.
  """
  values = (
    tuple(value)
    if isinstance(value, tuple | list) and len(value) != 2
    else (value,) * 4
  )
  if len(values) != 4:
    raise ValueError(
      f"{name} is {value!r}; it must be an integer, (height, width), or one of "
      "either per stage"
    )
  return tuple(pair(name, v) for v in values)


def frozen(value: object) -> Any:
  """Lists inside of `value` as tuples, which can be hashed."""
  nested = isinstance(value, tuple | list)
  return tuple(frozen(v) for v in value) if nested else value
