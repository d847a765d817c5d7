"""Rotary position embedding of a grid of patches (arXiv:2104.09864).

Pairs of a head's channels are turned by angles that grow along the image's
axes; tokens before those of the patches stay. Names are timm's:

  cat     half of the pairs follow the rows, half the columns, over places that
          are scaled to a reference grid (EVA-02, arXiv:2303.11331)
  dinov3  the same over the centres of the patches, in [-1, 1] along each axis
          (arXiv:2508.10104)
  mixed   every pair of every head of every block has a learnt frequency along
          each axis (arXiv:2403.13298)
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

KINDS = ("cat", "dinov3", "mixed")


@dataclasses.dataclass(frozen=True)
class Turn:
  """Turns query and key.

  Attributes:
    sin: (blocks, patches, heads, pairs) of the angles; 1 block or head stands
      for all.
    cos: the same.
    half: a pair is a channel of the first half and one of the second; else two
      neighbours.
  """

  sin: Float[Array, "b p h w"] | Float[np.ndarray, "b p h w"]
  cos: Float[Array, "b p h w"] | Float[np.ndarray, "b p h w"]
  half: bool = False

  def __call__(
    self, x: Float[Array, "n t h d"], block: int = 0
  ) -> Float[Array, "n t h d"]:
    """Turns; sums are in float32 at least.

    Args:
      x: query or key.
      block: number of the block.
    """
    row = block if len(self.sin) > 1 else 0
    sin, cos = self.sin[row], self.cos[row]
    prefix, inner = jnp.split(x, [x.shape[1] - len(sin)], axis=1)
    first, second = _pairs(inner, self.half)
    turned = [first * cos - second * sin, second * cos + first * sin]
    if self.half:
      out = jnp.concatenate(turned, -1)
    else:
      out = jnp.stack(turned, -1).reshape(inner.shape)
    return jnp.concatenate([prefix, out.astype(x.dtype)], axis=1)


def _pairs(x: Array, half: bool) -> tuple[Array, Array]:
  if half:
    first, second = jnp.split(x, 2, axis=-1)
    return first, second
  return x[..., ::2], x[..., 1::2]


def cat(
  grid: tuple[int, int],
  width: int,
  *,
  reference: tuple[int, int] | None = None,
  temperature: float = 10000.0,
  offset: float = 0.0,
  indexing: str = "ij",
  half: bool = False,
) -> Turn:
  """As `cat_angles` says; sines are float32, as timm's."""
  angles = cat_angles(
    grid,
    width,
    reference=reference,
    temperature=temperature,
    offset=offset,
    indexing=indexing,
  )[None, :, None]
  # Rounded once: libraries' float32 sines differ in the last bit.
  sin, cos = (
    f(angles.astype(np.float64)).astype(np.float32) for f in (np.sin, np.cos)
  )
  return Turn(sin, cos, half)


def cat_angles(
  grid: tuple[int, int],
  width: int,
  *,
  reference: tuple[int, int] | None = None,
  temperature: float = 10000.0,
  offset: float = 0.0,
  indexing: str = "ij",
) -> Float[np.ndarray, "p w"]:
  """Angles of the pairs of channels of a head, in radians, float32.

  Args:
    grid: patches of an image, down and across.
    width: channels of a head, a multiple of 4.
    reference: grid to which places are scaled; None is `grid`.
    temperature: of the frequencies.
    offset: added to the places, before they are scaled.
    indexing: 'ij': first the pairs of the rows, then those of the columns;
      'xy': the other way round.
  """
  axes = [
    (np.arange(n, dtype=np.float32) + np.float32(offset))
    / np.float32(n)
    * np.float32(r)
    if reference
    else np.arange(n, dtype=np.float32) + np.float32(offset)
    for n, r in zip(grid, reference or grid, strict=True)
  ]
  count = width // 4
  exponents = np.arange(count, dtype=np.float32) / np.float32(count)
  bands = np.float32(1) / _power(temperature, exponents)
  return (_places(axes, indexing)[..., None] * bands).reshape(-1, 2 * count)


def dinov3(
  grid: tuple[int, int],
  width: int,
  *,
  temperature: float = 100.0,
  offset: float = 0.0,
  indexing: str = "ij",
  half: bool = True,
) -> Turn:
  """Angles 2 pi x / period of the centres x of the patches, float64 sines.

  Args:
    grid: patches of an image, down and across.
    width: channels of a head, a multiple of 4.
    temperature: the periods are temperature^(4 i / width).
    offset: added to the places, in patches.
    indexing: see `cat_angles`.
    half: see `Turn`.
  """
  axes = [
    np.float32(2)
    * (
      (np.arange(n, dtype=np.float32) + np.float32(0.5) + np.float32(offset))
      / np.float32(n)
    )
    - np.float32(1)
    for n in grid
  ]
  count = width // 4
  exponents = np.float32(2) * np.arange(count, dtype=np.float32)
  periods = _power(temperature, exponents / np.float32(2 * count))
  # Places and periods are float32 in timm, what is made of them is not.
  places = _places(axes, indexing).astype(np.float64)[..., None]
  angles = 2 * np.pi * places / periods.astype(np.float64)
  angles = angles.reshape(1, -1, 1, 2 * count)
  return Turn(np.sin(angles), np.cos(angles), half)


def mixed(
  grid: tuple[int, int],
  frequencies: Float[Array, "2 b h w"],
  *,
  indexing: str = "xy",
) -> Turn:
  """Angles are the products of places and learnt frequencies.

  Args:
    grid: patches of an image, down and across.
    frequencies: of each axis, block, head and pair of channels.
    indexing: 'xy': the first axis of the frequencies is across, 'ij': down.
  """
  axes = [np.arange(n, dtype=np.float32) for n in grid]
  x, y = np.moveaxis(_places(axes, indexing).reshape(-1, 2), -1, 0)
  f, g = (
    a.astype(jnp.promote_types(a.dtype, jnp.float32))[:, None]
    for a in frequencies
  )
  angles = x[:, None, None] * f + y[:, None, None] * g
  return Turn(jnp.sin(angles), jnp.cos(angles))


def mixed_init(
  key: Array,
  shape: tuple[int, int, int, int],
  dtype: jnp.dtype = jnp.float32,
  *,
  temperature: float = 10.0,
) -> Float[Array, "2 b h w"]:
  """First frequencies: those of two axes, turned at random per head."""
  _, blocks, heads, pairs = shape
  sizes = temperature ** (-jnp.arange(pairs // 2, dtype=dtype) / (pairs // 2))
  turn = 2 * jnp.pi * jax.random.uniform(key, (blocks, heads, 1), dtype)
  both = jnp.concatenate(
    [
      jnp.broadcast_to(turn, (blocks, heads, pairs // 2)) + a
      for a in (0, jnp.pi / 2)
    ],
    -1,
  )
  sizes = jnp.tile(sizes, 2)
  return jnp.stack([sizes * jnp.cos(both), sizes * jnp.sin(both)])


def _power(base: float, exponents: np.ndarray) -> np.ndarray:
  """float32, rounded once."""
  return (base ** exponents.astype(np.float64)).astype(np.float32)


def _places(
  axes: list[np.ndarray], indexing: str
) -> Float[np.ndarray, "y x 2"]:
  places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
  return places if indexing == "ij" else places[..., ::-1]
