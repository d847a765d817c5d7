"""Semantic FPN (arXiv:1901.02446, section 3): a sum over a feature pyramid.

The pyramid is that of arXiv:1612.03144: lateral 1x1 convolutions, sums with
the coarser level (nearest neighbours), 3x3 convolutions.
"""

from __future__ import annotations

import itertools

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, maps
from kd_jax.transfer.heads import base
from kd_jax.types import Taps

_EPS = 1e-5


class Head(base.PyramidHead):
  """Every level is brought to the finest in steps of one level, and summed.

  Attributes:
    dropout: see `base.MapHead`.
    channels: width of the levels of the pyramid.
    branch_channels: width of what is summed.
    num_groups: groups of the normalisations; divides `branch_channels`.
  """

  dropout: float = 0.0
  channels: int = 256
  branch_channels: int = 128
  num_groups: int = 32

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("channels", "branch_channels", "num_groups"):
      base.at_least(name, getattr(self, name), 1)
    if self.branch_channels % self.num_groups:
      raise ValueError(
        f"head.num_groups={self.num_groups} does not divide "
        f"head.branch_channels={self.branch_channels}"
      )

  @nn.compact
  def __call__(
    self, taps: Taps, *, train: bool
  ) -> Float[Array, "n h w classes"]:
    """See `base.MapHead`.

    Parameters: `lateral_*`, `fpn_*`, `branch_*`, `classifier`.
    """
    levels = self._pyramid(taps)
    sizes = [maps.size_of(x) for x in levels]
    found = []
    for index, name in enumerate(base.PYRAMID):
      # Down to the finest; levels of equal size (dilation) need no step.
      pairs = itertools.pairwise(sizes[: index + 1])
      steps = [finer for finer, coarser in pairs if finer != coarser]
      branch = Branch(
        tuple(reversed(steps)) or (sizes[0],),
        self.branch_channels,
        self.num_groups,
        self.dtype,
        name=f"branch_{name}",
      )
      found.append(branch(levels[index]))
    return self.classify(sum(found[1:], found[0]), train)

  def _pyramid(self, taps: Taps) -> list[Array]:
    """The levels, finest first."""
    levels, top = [], None
    for name in reversed(base.PYRAMID):
      fields = {"dtype": self.dtype, "name": f"lateral_{name}"}
      lateral = base.conv(taps[name], self.channels, **fields)
      if top is not None:
        lateral = lateral + maps.nearest(top, maps.size_of(lateral))
      top = lateral
      fields["name"] = f"fpn_{name}"
      levels.append(base.conv(top, self.channels, 3, **fields))
    return levels[::-1]


class Branch(nn.Module):
  """3x3 convolution, group normalisation, ReLU and resizing, repeatedly.

  Attributes:
    sizes: (height, width) after each step.
    features: number of output channels.
    num_groups: groups of the normalisations.
    dtype: compute dtype.
  """

  sizes: tuple[maps.Size, ...]
  features: int
  num_groups: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Runs the steps; parameters `conv0`, `norm0`, ..."""
    for i, size in enumerate(self.sizes):
      fields = {"use_bias": False, "dtype": self.dtype, "name": f"conv{i}"}
      x = base.conv(x, self.features, 3, **fields)
      norm = nn.GroupNorm(
        self.num_groups,
        epsilon=_EPS,
        dtype=self.dtype,
        use_fast_variance=False,
        name=f"norm{i}",
      )
      x = maps.resize(nn.relu(norm(x)), size, align_corners=False)
    return x
