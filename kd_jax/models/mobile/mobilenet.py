"""MobileNetV2 (arXiv:1801.04381) with timm's names, widths and feature maps.

Initialisation, as in KDEP: convolutions N(0, 2 / (k k c_out)), normalisation
scale 1, classifier weights N(0, 0.01^2) and biases 0.
"""

from __future__ import annotations

import dataclasses

from jax.nn import initializers

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.mobile import base, mbconv

VARIANTS = {
  "mobilenetv2_035": {"channel_multiplier": 0.35},
  "mobilenetv2_050": {"channel_multiplier": 0.5},
  "mobilenetv2_075": {"channel_multiplier": 0.75},
  "mobilenetv2_100": {"channel_multiplier": 1.0},
  "mobilenetv2_140": {"channel_multiplier": 1.4},
  "mobilenetv2_110d": {
    "channel_multiplier": 1.1,
    "depth_multiplier": 1.2,
    "fix_stem_head": True,
  },
  "mobilenetv2_120d": {
    "channel_multiplier": 1.2,
    "depth_multiplier": 1.4,
    "fix_stem_head": True,
  },
}

RULES = base.RULES


def _kaiming(groups: int) -> initializers.Initializer:
  """KDEP's, which is the same for depthwise convolutions."""
  del groups
  return layers.kaiming_fan_out


class Model(base.MobileNet):
  """MobileNetV2 family; `VARIANTS` lists the named members.

  Attributes:
    arch_def: see `MobileNet`.
    act_layer: see `MobileNet`.
  """

  arch_def: tuple[str, ...] = (
    "ds_r1_k3_s1_c16",
    "ir_r2_k3_s2_e6_c24",
    "ir_r3_k3_s2_e6_c32",
    "ir_r4_k3_s2_e6_c64",
    "ir_r3_k3_s1_e6_c96",
    "ir_r3_k3_s2_e6_c160",
    "ir_r1_k3_s1_e6_c320",
  )
  act_layer: str = "relu6"

  @property
  def style(self) -> mbconv.Style:
    """What the layers share."""
    return dataclasses.replace(super().style, init=_kaiming)

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution."""
    return 1280 if self.fix_stem_head else max(1280, self.scaled(1280))

  def head_inits(self) -> backbone.Inits:
    """Initialisers of the classifier."""
    init = initializers.normal(0.01)
    return {"kernel_init": init, "bias_init": initializers.zeros}
