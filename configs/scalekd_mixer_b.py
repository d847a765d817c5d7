r"""ScaleKD, Swin-L -> Mixer-B/16 and BEiT-L/14 -> Mixer-B/14 (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_mixer_b.py
Variants: `:beit` (B/14), `:smoke`, `:smoke_beit`.

Expected (top-1 on ImageNet, README and figures of the paper): 81.96 for B/16,
76.44 without a teacher; 82.89 for B/14, 76.62 without. The batch of B/14 is 768
by the code's 24 images on each of 32 GPUs, 1536 by its comment.
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

TAPS = ("block09", "stage4")


def get_config(variant: str = "") -> ConfigDict:
  """AdamW with the rates of the Mixers, blocks dropped with .1."""
  small, kind = split(variant, ("", "beit"))
  beit = kind == "beit"
  config = scalekd(
    "beit_l" if beit else "swin_l",
    "mixer_b16_224",
    advanced(768 if beit else 1536, 8.0, mixer_adamw()),
    taps=TAPS,
    heads=(8, 8),
    sharpness=1.0 if beit else 5.0,
    task="ls" if beit else "ce",
    ema=0.9999 if beit else 0.0,
    overrides={"drop_path_rate": 0.1, "patch_size": 14 if beit else 16},
  )
  if small:
    tiny(config, TINY_MIXER, ("block01", "stage4"))
  config.lock()
  return config
