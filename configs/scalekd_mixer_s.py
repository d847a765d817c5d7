r"""ScaleKD, Swin-L -> Mixer-S/16 on ImageNet (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_mixer_s.py
Variants: `:smoke`.

Expected (top-1, README and figures of the paper): 78.63, and 74.02 without a
teacher. The batch is 768 by the code's 24 images on each of 32 GPUs, 1536 by
its comment. The code keeps a moving average and evaluates the raw weights;
here the average is what is evaluated and exported: --config.ema_decay=0 for
the raw ones.
"""

from ml_collections import ConfigDict

from configs.common_scalekd import (
  TINY_MIXER,
  advanced,
  mixer_adamw,
  scalekd,
  split,
  tiny,
)

TAPS = ("block05", "stage4")


def get_config(variant: str = "") -> ConfigDict:
  """AdamW with the rates of the Mixers; no label smoothing."""
  small, _ = split(variant, ("",))
  config = scalekd(
    "swin_l",
    "mixer_s16_224",
    advanced(768, 8.0, mixer_adamw()),
    taps=TAPS,
    heads=(8, 8),
    sharpness=5.0,
    task="ce",
    ema=0.9999,
  )
  if small:
    tiny(config, TINY_MIXER, ("block01", "stage4"))
  config.lock()
  return config
