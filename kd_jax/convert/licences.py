"""Licences of timm's pretrained weights, where they are not free ones.

The patterns are timm 1.0.31's field `license` in short; a test compares them
with timm where it is installed. Weights without a pattern are Apache-2.0, MIT
or BSD, or timm does not say.
"""

from __future__ import annotations

import fnmatch
import importlib.util

FREE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")

_OTHERS = (
  ("*.eupe*", "fair-noncommercial-research-license"),
  ("*dinov3*", "dinov3-license"),
  ("*sapiens2*", "sapiens2-license"),
  ("hiera_*.mae*", "cc-by-nc-4.0"),
  ("vit_*.mae", "cc-by-nc-4.0"),
  ("convnextv2_*.fcmae*", "cc-by-nc-4.0"),
  ("*.metaclip*", "cc-by-nc-4.0"),
  ("regnety_*.swag*", "cc-by-nc-4.0"),
  ("regnety_*.seer*", "seer-license"),
  ("res*.fb_*ig1b*", "cc-by-nc-4.0"),
  ("res*.fb_*yfcc100m*", "cc-by-nc-4.0"),
  ("resnext101_*.fb_wsl*", "cc-by-nc-4.0"),
  ("*_ijepa", "cc-by-nc-4.0"),
  ("*.c_radio", "nvidia-open-model-license"),
  ("vit_*.apple_mclip2*", "apple-amlr"),
  ("aimv2_*.apple*", "apple-ascl"),
  ("*.dfn*", "apple-ascl"),
  ("fastvit_mci*", "apple-amlr"),
  ("fastvit_*.apple_*", "fastvit-license"),
  ("mobileone_*.apple*", "mobileone-license"),
  ("mobilevit*.cvnets*", "cvnets-license"),
)


def restricted(weights: str) -> str:
  """The licence of weights that are not free ones, '' for all others.

  Args:
    weights: timm's name with its tag, as 'timm/vit_tiny_patch16_224.augreg'.
  """
  name = weights.rpartition("/")[2]
  for pattern, licence in _OTHERS:
    if fnmatch.fnmatchcase(name, pattern):
      return licence
  return ""


def of(weights: str) -> str:
  """As `restricted`, and the free ones if timm is there to be asked."""
  found = restricted(weights)
  if found or not importlib.util.find_spec("timm"):
    return found
  import timm

  config = timm.get_pretrained_cfg(weights.rpartition("/")[2])
  return (config.license if config else None) or ""


def notice(weights: str) -> str:
  """A sentence for those who choose such weights, '' for all others."""
  licence = restricted(weights)
  if not licence:
    return ""
  return (
    f"licence of these weights: {licence}, which is not Apache; read it before "
    "you use or ship what learns from them"
  )
