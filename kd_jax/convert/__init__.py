"""Weights and preprocessing facts, between timm's files and this package."""

from __future__ import annotations

from kd_jax.convert.checkpoint import read_checkpoint
from kd_jax.convert.detectors import save_layout
from kd_jax.convert.pretrained import load_pretrained, save_flax, save_timm
from kd_jax.convert.weights import from_timm, to_timm

__all__ = [
  "from_timm",
  "load_pretrained",
  "read_checkpoint",
  "save_flax",
  "save_layout",
  "save_timm",
  "to_timm",
]
