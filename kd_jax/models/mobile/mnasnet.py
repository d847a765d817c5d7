"""MnasNet (arXiv:1807.11626), FBNet-C (1812.03443), SPNASNet (1904.02877).

Names, widths and feature maps are timm's; 'semnasnet' is MnasNet-A1, 'mnasnet'
B1. Initialisation: see `kd_jax.models.mobile.base`. The public weights of
fbnetc_100, and only they, need `bn_eps=1e-3`, which timm sets as it loads them.
"""

from __future__ import annotations

from typing import Any

from kd_jax.models.mobile import base

_A1 = (
  "ds_r1_k3_s1_e1_c16_noskip",
  "ir_r2_k3_s2_e6_c24",
  "ir_r3_k5_s2_e3_c40_se0.25",
  "ir_r4_k3_s2_e6_c80",
  "ir_r2_k3_s1_e6_c112_se0.25",
  "ir_r3_k5_s2_e6_c160_se0.25",
  "ir_r1_k3_s1_e6_c320",
)
_B1 = (
  "ds_r1_k3_s1_c16_noskip",
  "ir_r3_k3_s2_e3_c24",
  "ir_r3_k5_s2_e3_c40",
  "ir_r3_k5_s2_e6_c80",
  "ir_r2_k3_s1_e6_c96",
  "ir_r4_k5_s2_e6_c192",
  "ir_r1_k3_s1_e6_c320_noskip",
)
_TINY = (
  "ds_r1_k3_s1_c8",
  "ir_r1_k3_s2_e3_c16",
  "ir_r2_k3_s2_e6_c16",
  "ir_r4_k5_s2_e6_c32_se0.25",
  "ir_r3_k3_s1_e6_c32_se0.25",
  "ir_r3_k5_s2_e6_c88_se0.25",
  "ir_r1_k3_s1_e6_c144",
)
_FBNETC = (
  "ir_r1_k3_s1_e1_c16",
  "ir_r1_k3_s2_e6_c24 ir_r2_k3_s1_e1_c24",
  "ir_r1_k5_s2_e6_c32 ir_r1_k5_s1_e3_c32 ir_r1_k5_s1_e6_c32 ir_r1_k3_s1_e6_c32",
  "ir_r1_k5_s2_e6_c64 ir_r1_k5_s1_e3_c64 ir_r2_k5_s1_e6_c64",
  "ir_r3_k5_s1_e6_c112 ir_r1_k5_s1_e3_c112",
  "ir_r4_k5_s2_e6_c184",
  "ir_r1_k3_s1_e6_c352",
)
_SPNAS = (
  "ds_r1_k3_s1_c16_noskip",
  "ir_r3_k3_s2_e3_c24",
  "ir_r1_k5_s2_e6_c40 ir_r3_k3_s1_e3_c40",
  "ir_r1_k5_s2_e6_c80 ir_r3_k3_s1_e3_c80",
  "ir_r1_k5_s1_e6_c96 ir_r3_k5_s1_e3_c96",
  "ir_r4_k5_s2_e6_c192",
  "ir_r1_k3_s1_e6_c320_noskip",
)


def _variant(arch: tuple[str, ...], width: float = 1.0) -> dict[str, Any]:
  return {"arch_def": arch, "channel_multiplier": width}


VARIANTS = {
  "mnasnet_050": _variant(_B1, 0.5),
  "mnasnet_075": _variant(_B1, 0.75),
  "mnasnet_100": _variant(_B1),
  "mnasnet_140": _variant(_B1, 1.4),
  "mnasnet_small": {"arch_def": _TINY, "stem_size": 8},
  "semnasnet_050": _variant(_A1, 0.5),
  "semnasnet_075": _variant(_A1, 0.75),
  "semnasnet_100": _variant(_A1),
  "semnasnet_140": _variant(_A1, 1.4),
  "spnasnet_100": {"arch_def": _SPNAS, "interpolation": "bilinear"},
  "fbnetc_100": {
    "arch_def": _FBNETC,
    "stem_size": 16,
    "head_width": 1984,
    "interpolation": "bilinear",
  },
}

RULES = base.RULES


class Model(base.MobileNet):
  """Networks of early architecture search; `VARIANTS` lists the members.

  Attributes:
    arch_def: see `MobileNet`.
    head_width: channels of the last 1x1 convolution, which are never scaled.
  """

  arch_def: tuple[str, ...] = _B1
  head_width: int = 1280

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.head_width < 1:
      raise ValueError(f"head_width is {self.head_width}; it must be > 0")

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution."""
    return self.head_width
