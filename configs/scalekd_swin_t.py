r"""ScaleKD, Swin-L -> Swin-T on ImageNet (NeurIPS 2024).

Command: python -m kd_jax.main --config configs/scalekd_swin_t.py
Variants: `:smoke`.

Expected (top-1, README and figures of the paper): 83.80, and 81.18 without a
teacher. The code's committed version fails for this pair; its batch of 512 is
16 images on each of 32 GPUs.
"""

from ml_collections import ConfigDict

from configs.common_scalekd import adamw, advanced, scalekd, split, tiny

TAPS = ("stage3", "final")
TINY = {
  "img_size": 64,
  "embed_dim": 4,
  "depths": (1, 1, 1, 1),
  "num_heads": (1, 1, 2, 2),
}


def get_config(variant: str = "") -> ConfigDict:
  """AdamW, stochastic depth of .05, LayerNorm in the projectors."""
  small, _ = split(variant, ("",))
  config = scalekd(
    "swin_l",
    "swin_tiny_patch4_window7_224",
    advanced(512, 9.0, adamw()),
    taps=TAPS,
    heads=(24, 48),
    sharpness=1.0,
    task="ls",
    norm="layer",
    ema=0.9999,
    overrides={"drop_path_rate": 0.05},
  )
  if small:
    tiny(config, TINY, TAPS)
  config.lock()
  return config
