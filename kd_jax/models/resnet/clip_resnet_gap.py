"""The ResNets of CLIP without their attention: global pooling, as any ResNet.

See `clip_base`. The classifier, which the published weights lack,
starts at N(0, 0.01^2).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.nn import initializers
from jaxtyping import Array

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.resnet import clip_base

VARIANTS = {
  f"{name}_clip_gap": {**fields, "num_classes": 0}
  for name, fields in clip_base.SIZES.items()
}

RULES = (*clip_base.RULES, ("head.fc", "params/head", "dense"))
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Model(clip_base.Trunk):
  """CLIP's ResNets, pooled; `VARIANTS` lists the named members."""

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage != "head":
      return super().run_stage(stage, x, train=train)
    return backbone.classify(
      self,
      x,
      kernel_init=initializers.normal(0.01),
      bias_init=initializers.zeros,
    )


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """OpenAI's names; the attention is dropped.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.
  """
  found = clip_base.from_openai(state_dict)
  pool = ("head.pos_embed", "head.q.", "head.k.", "head.v.", "head.proj.")
  return {k: v for k, v in found.items() if not k.startswith(pool)}
