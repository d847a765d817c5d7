r"""ScaleKD and KDEP together, Swin-L -> ResNet-50, without labels.

Command: python -m kd_jax.main --config configs/scalekd_kdep_r50.py \
  --config.data.name=folder --config.data.dir=DIR
Variants: `:smoke`.

ScaleKD's maps (configs/scalekd_r50.py:unlabelled) plus KDEP's pooled feature
before the last activation, brought to the student's width by SVD: one teacher
pass serves both. Not in a paper: both weights are those of their own.

Expected: no figure is established.
"""

from ml_collections import ConfigDict

from configs.common_scalekd import (
  advanced,
  lamb,
  scalekd,
  split,
  tiny,
  unlabelled,
)

TAPS = ("stage3", "stage4")
TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8), "stem_width": 4}
KDEP = {"name": "kdep", "align": {"name": "svd"}, "temperature": 0.1}
KDEP |= {"power": 3.0}


def get_config(variant: str = "") -> ConfigDict:
  """Terms are named by their method."""
  small, _ = split(variant, ("",))
  config = scalekd(
    "swin_l",
    "resnet50d",
    advanced(2048, 8.75, lamb()),
    taps=TAPS,
    heads=(16, 24),
    sharpness=5.0,
    task="bce",
  )
  unlabelled(config)
  if small:
    tiny(config, TINY, TAPS)
    unlabelled(config)
  parts = {"scalekd": config.method.to_dict(), "kdep": KDEP}
  weights = config.losses.to_dict()
  config.method = ConfigDict({"name": "multi", "parts": parts})
  config.losses = ConfigDict(
    {
      **{f"scalekd/{term}": weight for term, weight in weights.items()},
      "kdep/feature": 3.0,
    }
  )
  config.lock()
  return config
