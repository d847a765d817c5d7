"""Feature pyramid of a network with strides (arXiv:1612.03144)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks import maps as maps_lib
from kd_jax.transfer.detection import parts
from kd_jax.transfer.detection.forms import base
from kd_jax.types import STAGES, Taps

MAPS = STAGES[1:-1]


@dataclasses.dataclass(frozen=True)
class Form(base.PyramidForm):
  """Levels of stage1 to stage4, and one more; linear box head.

  Every map has half the sides of the one before.
  """

  def inputs(
    self, net: backbone.Backbone, taps: Taps, size: base.Size
  ) -> tuple[Float[Array, "n _ _ _"], ...]:
    """See `base.BaseForm`."""
    del net, size
    found = [taps[name] for name in MAPS]
    if any(x.ndim == 3 for x in found):
      raise ValueError(
        "detector 'fpn' needs four maps of falling resolution; this student "
        "has tokens of one size. Set --config.detector.name=simple"
      )
    sizes = [x.shape[1:3] for x in found]
    for finer, coarser in zip(sizes, sizes[1:], strict=False):
      halves = zip(finer, coarser, strict=True)
      if not all(half in (n // 2, -(-n // 2)) for n, half in halves):
        raise ValueError(
          "detector 'fpn' needs four maps, each of half the sides of the one "
          f"before; this student's are {sizes}. Set "
          "--config.student.overrides.output_stride=32, or "
          "--config.detector.name=c4"
        )
    return tuple(found)

  def strides(
    self, maps: Sequence[Float[Array, "n _ _ _"]], size: base.Size
  ) -> tuple[float, ...]:
    """See `base.BaseForm`."""
    first = base.stride_of(maps[0], size)
    return tuple(first * 2**i for i in range(5))

  def neck(self, dtype: layers.Dtype) -> Neck:
    """See `base.BaseForm`."""
    return Neck(self.channels, dtype)


class Neck(nn.Module):
  """Lateral 1x1 convolutions, sums from the coarsest down, 3x3 convolutions.

  Attributes:
    channels: width of the levels.
    dtype: compute dtype.
  """

  channels: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, maps: Sequence[Float[Array, "n _ _ _"]]
  ) -> list[Float[Array, "n _ _ c"]]:
    """Five levels, finest first; the last is every other pixel of the fourth.

    Parameters: `lateral_stage1`, ..., `output_stage1`, ...
    """
    fields = {"init": parts.XAVIER, "dtype": self.dtype}
    levels, top = [], None
    for name, x in reversed(list(zip(MAPS, maps, strict=True))):
      x = parts.conv(self.channels, **fields, name=f"lateral_{name}")(x)
      top = x if top is None else x + maps_lib.nearest(top, maps_lib.size_of(x))
      output = parts.conv(self.channels, 3, **fields, name=f"output_{name}")
      levels.append(output(top))
    return [*levels[::-1], levels[0][:, ::2, ::2]]
