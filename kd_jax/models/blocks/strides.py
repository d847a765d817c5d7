"""What convolutional families share: strides, dilations, drop rates, widths."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers


class Step(NamedTuple):
  """Geometry of one stage.

  Attributes:
    stride: of the first block.
    first_dilation: of the first block.
    dilation: of all other blocks.
  """

  stride: int
  first_dilation: int
  dilation: int


def steps(
  output_stride: int, net_stride: int, strides: Sequence[int] = (1, 2, 2, 2)
) -> list[Step]:
  """Stage by stage, with dilation instead of strides beyond `output_stride`.

  Args:
    output_stride: largest total stride.
    net_stride: total stride in front of the first stage.
    strides: of the stages, if nothing is dilated.

  Returns:
    One step per stage, as in timm.
  """
  plan, dilation = [], 1
  for stride in strides:
    if net_stride >= output_stride:
      dilation, stride = dilation * stride, 1
    net_stride *= stride
    plan.append(Step(stride, 1 if dilation < 3 else 2, dilation))
  return plan


def drop_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
  """Per stage and block, from 0 at the first to `rate` at the last block."""
  last = max(sum(depths) - 1, 1)
  starts = [sum(depths[:i]) for i in range(len(depths))]
  return [
    [rate * (start + i) / last for i in range(depth)]
    for start, depth in zip(starts, depths, strict=True)
  ]


def divisible(width: float, keep: float = 0.9) -> int:
  """The nearest multiple of 8 that is at least `keep` of `width`."""
  rounded = max(8, int(width + 4) // 8 * 8)
  return rounded + 8 if rounded < keep * width else rounded


def average_down(
  x: Float[Array, "n h w c"], stride: int, dilation: int
) -> Float[Array, "n y x c"]:
  """2x2 averages for the shortcut of ResNet-D (arXiv:1812.01187).

  Args:
    x: maps.
    stride: 1 or 2; odd sizes are rounded up, averages are over true pixels.
    dilation: above 1 the windows overlap, and zeros count beyond the edge.

  Returns:
    The averages; `x` itself if both numbers are 1.
  """
  if dilation > 1:
    return layers.average_pooling(x, (2, 2), (1, 1), ((0, 1), (0, 1)))
  if stride == 1:
    return x
  odd = tuple((0, length % 2) for length in x.shape[1:3])
  return layers.average_pooling(x, (2, 2), (2, 2), odd, count_include_pad=False)


def blur(
  x: Float[Array, "n h w c"], mode: str = "constant", stride: int = 2
) -> Float[Array, "n y x c"]:
  """Every other pixel of a binomial blur, 1 2 1 (arXiv:1904.11486).

  Args:
    x: maps.
    mode: padding of one pixel, see `jnp.pad`.
    stride: distance of the pixels that are kept.
  """
  for axis in (1, 2):
    sides = [(1, 1) if a == axis else (0, 0) for a in range(4)]
    padded, length = jnp.pad(x, sides, mode), x.shape[axis]
    parts = [
      lax.slice_in_dim(padded, i, i + length, stride, axis) for i in (0, 1, 2)
    ]
    x = (parts[0] + 2 * parts[1] + parts[2]) / 4
  return x


def average(x: Float[Array, "n h w c"]) -> Float[Array, "n y x c"]:
  """Averages of 2x2 pixels; an odd last row or column is left out."""
  return layers.average_pooling(x, (2, 2), (2, 2))


POOLS: dict[str, Callable[[Array], Array]] = {
  "avg": average,
  "blur": functools.partial(blur, mode="reflect"),
  "blurpc": blur,
}
"""Poolings that take the place of a stride of 2, named as in timm."""
