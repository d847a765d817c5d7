r"""ScaleKD, Swin-L -> ConvNeXt-T on ImageNet (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_convnext_t.py
Variants: `:smoke`.

Expected (top-1, README and figures of the paper): 84.16, and 82.14 without a
teacher.
"""

from ml_collections import ConfigDict

from configs.common_scalekd import adamw, advanced, scalekd, split, tiny

TAPS = ("stage3", "final")
TINY = {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)}


def get_config(variant: str = "") -> ConfigDict:
  """AdamW without clipping, stochastic depth of .1."""
  small, _ = split(variant, ("",))
  config = scalekd(
    "swin_l",
    "convnext_tiny",
    advanced(1024, 9.0, adamw(clip_norm=0.0)),
    taps=TAPS,
    heads=(8, 16),
    sharpness=1.0,
    task="ls",
    ema=0.9999,
    overrides={"drop_path_rate": 0.1},
  )
  if small:
    tiny(config, TINY, TAPS)
  config.lock()
  return config
