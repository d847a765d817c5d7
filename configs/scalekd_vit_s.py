r"""ScaleKD, Swin-L -> ViT-S/16 on ImageNet (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_vit_s.py
Variants: `:smoke`.

Expected (top-1, README and figures of the paper): 83.93, and 79.90 without a
teacher. The student has no class token: it averages its normalised tokens.
"""

from ml_collections import ConfigDict

from configs.common_scalekd import (
  TINY_TOKENS,
  adamw,
  advanced,
  scalekd,
  split,
  tiny,
)

TAPS = ("stage3", "final")
AVERAGED = {"class_token": False, "global_pool": "avg", "fc_norm": False}


def get_config(variant: str = "") -> ConfigDict:
  """AdamW; positions do not decay either."""
  small, _ = split(variant, ("",))
  config = scalekd(
    "swin_l",
    "vit_small_patch16_224",
    advanced(1024, 9.0, adamw(no_decay=("pos_embed",))),
    taps=TAPS,
    heads=(8, 8),
    sharpness=5.0,
    task="ls",
    ema=0.9999,
    overrides=AVERAGED,
  )
  if small:
    tiny(config, TINY_TOKENS, TAPS)
  config.lock()
  return config
