"""MobileNetV1 (arXiv:1704.04861) with timm's names, widths and feature maps.

The network ends with an activation, or with a 1x1 convolution ('h').
Initialisation: see `kd_jax.models.mobile.base`.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.mobile import base, mbconv, words

VARIANTS = {
  "mobilenetv1_100": base.HALF,
  "mobilenetv1_100h": {"head_conv": True, **base.HALF},
  "mobilenetv1_125": {
    "channel_multiplier": 1.25,
    "crop_pct": 0.9,
    **base.HALF,
  },
}

RULES = base.RULES


class Model(base.MobileNet):
  """MobileNetV1 family; `VARIANTS` lists the named members.

  Attributes:
    arch_def: see `MobileNet`; the last block must be 'dsa' or 'cn' unless
      `head_conv`.
    act_layer: see `MobileNet`.
    head_conv: end with a 1x1 convolution; without it there is no tap 'final'.
  """

  arch_def: tuple[str, ...] = (
    "dsa_r1_k3_s1_c64",
    "dsa_r2_k3_s2_c128",
    "dsa_r2_k3_s2_c256",
    "dsa_r6_k3_s2_c512",
    "dsa_r2_k3_s2_c1024",
  )
  act_layer: str = "relu6"
  head_conv: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    if not self.head_conv and not words.decode(self.arch_def[-1])[-1].last_act:
      raise ValueError(
        f"arch_def ends with {self.arch_def[-1]!r}, without an activation; "
        "end it with a block 'dsa' or 'cn', or set head_conv=True"
      )

  @property
  def neck_width(self) -> int:
    """Channels of the last 1x1 convolution; 0 if there is none."""
    if not self.head_conv:
      return 0
    return 1024 if self.fix_stem_head else max(1024, self.scaled(1024))

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = self.neck_width or self._last()["features"]
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone`; 'feature' comes with 'head', or else with 'stage4'."""
    if self.head_conv or stage not in ("stage4", "head"):
      return super().run_stage(stage, x, train=train)
    if stage == "head":
      return backbone.classify(self, x, **self.head_inits())
    x, _ = super().run_stage(stage, x, train=train)
    final = mbconv.ACTIVATIONS[self._last()["act"]](x)
    return final, {stage: final, "feature": x.mean((1, 2))}

  def plan(self) -> base.Plan:
    """See `MobileNet`; `run_stage` applies the last activation itself."""
    plan = super().plan()
    if not self.head_conv:
      plan["stage4"][-1][1]["last_act"] = False
    return plan

  def _last(self) -> dict[str, Any]:
    """Fields of the last block."""
    return self.plan()["stage4"][-1][1]
