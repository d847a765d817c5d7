"""KDEP: the pooled feature, aligned by SVD and power-temperature scaling.

He et al., CVPR 2022. `fields.kdep` has the recipe.
"""

from kd_jax import models
from kd_jax.door.pair import Pair, Settings

_RATES = {"resnet": 0.3, "mobilenet": 0.1}
"""The authors' rates for ResNet-18 and MobileNetV2, by family of kd_jax."""

_OTHERS = min(_RATES.values())  # which they did not try


def settings(pair: Pair) -> Settings:
  """90 passes, as the authors train on the tenth of ImageNet."""
  rate = _RATES.get(models.family_of(pair.name), _OTHERS)
  return Settings({}, passes=90, rate=rate, spectrum=True)
