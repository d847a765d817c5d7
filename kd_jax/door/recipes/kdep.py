"""KDEP: the pooled feature, aligned by SVD and power-temperature scaling.

He et al., CVPR 2022. `fields.kdep` has the recipe; rates are the authors' for
ResNet-18 (.3) and MobileNetV2 (.1), of which other students get the lower one.
"""

from kd_jax.door.pair import Pair, Settings


def settings(pair: Pair) -> Settings:
  """90 passes, as the authors train on the tenth of ImageNet."""
  rate = 0.3 if pair.name.startswith("resnet") else 0.1
  return Settings({}, passes=90, rate=rate, spectrum=True)
