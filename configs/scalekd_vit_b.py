r"""ScaleKD, Swin-L -> ViT-B/16 and BEiT-L/14 -> ViT-B/14 (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_vit_b.py
Variants: `:beit` (B/14), `:smoke`, `:smoke_beit`.

Expected (top-1 on ImageNet, README and figures of the paper): 85.53 for B/16,
81.80 without a teacher; 86.43 for B/14, 82.02 without. The batch of B/16 is 512
by the code's 16 images on each of 32 GPUs, 1024 by its comment.
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
  small, kind = split(variant, ("", "beit"))
  beit = kind == "beit"
  config = scalekd(
    "beit_l" if beit else "swin_l",
    "vit_base_patch16_224",
    advanced(1024 if beit else 512, 9.0, adamw(no_decay=("pos_embed",))),
    taps=TAPS,
    heads=(8, 8),
    sharpness=1.0 if beit else 5.0,
    task="ls",
    ema=0.0 if beit else 0.9999,
    crop_pct=0.875 if beit else 1.0,
    overrides={**AVERAGED, "patch_size": 14 if beit else 16},
  )
  if small:
    tiny(config, TINY_TOKENS, TAPS)
  config.lock()
  return config
