"""The student's last stage as box head (arXiv:1506.01497, 1512.03385)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.transfer.detection import heads
from kd_jax.transfer.detection.forms import base
from kd_jax.transfer.detection.ops import anchors
from kd_jax.types import Taps


@dataclasses.dataclass(frozen=True)
class Form(base.BaseForm):
  """Proposals and regions on stage3, which stage4 and a mean make vectors.

  Attributes:
    extra_norm: a BatchNorm behind stage4, as KDEP and MoCo (arXiv:1911.05722)
      transfer with; boxes and masks read what it gives.
  """

  END: ClassVar[str] = "stage3"
  TAIL: ClassVar[str] = "stage4"

  pre_nms: tuple[int, ...] = (12000, 6000)
  post_nms: tuple[int, ...] = (2000, 1000)
  pooled: int = 14
  mask_convs: int = 0
  extra_norm: bool = True

  @property
  def cells(self) -> tuple[Float[np.ndarray, "a 4"], ...]:
    """See `base.BaseForm`: all sizes on one level."""
    return (anchors.cell(self.sizes, self.ratios),)

  def inputs(
    self, net: backbone.Backbone, taps: Taps, size: base.Size
  ) -> tuple[Float[Array, "n _ _ _"], ...]:
    """See `base.BaseForm`."""
    del net, size
    if taps["stage3"].ndim != 4:
      raise ValueError(
        "detector 'c4' runs stage4 on parts of a map; this student has tokens. "
        "Set --config.detector.name=simple"
      )
    return (taps["stage3"],)

  def strides(
    self, maps: Sequence[Float[Array, "n _ _ _"]], size: base.Size
  ) -> tuple[float, ...]:
    """See `base.BaseForm`."""
    return (base.stride_of(maps[0], size),)

  def neck(self, dtype: layers.Dtype) -> None:
    """See `base.BaseForm`."""
    del dtype

  def box(self, num_classes: int, dtype: layers.Dtype) -> heads.MeanBox:
    """See `base.BaseForm`."""
    return heads.MeanBox(num_classes, self.extra_norm, dtype)
