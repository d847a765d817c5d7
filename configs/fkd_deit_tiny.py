r"""FKD, EfficientNet-L2 -> DeiT-Tiny on ImageNet (Shen & Xing, ECCV 2022).

Command: python -m kd_jax.main --config configs/fkd_deit_tiny.py \
  --config.teacher.weights=runs/bank_fkd/bank
Write the bank first: configs/bank_fkd.py
Variants: `:small` (DeiT-Small), `:smoke`. No stochastic depth: the authors
declare .1, which never reaches the network.

Expected: top-1 75.2 (authors' README; DeiT's own distillation 74.5). `:small`:
no figure of FKD; ViT-S by FerKD, 81.16 from the same teacher.
"""

from ml_collections import ConfigDict

from configs.common import choose, fkd_imagenet

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4}


def get_config(variant: str = "") -> ConfigDict:
  """AdamW, rate 2e-3, five epochs of warm-up."""
  choose(variant, ("", "small", "smoke"))
  size, rest = ("small", "") if variant == "small" else ("tiny", variant)
  config = fkd_imagenet(rest, f"deit_{size}_patch16_224", "adamw")
  if variant == "smoke":
    with config.unlocked():
      config.student.overrides.update({**TINY, "num_heads": 2})
  return config
