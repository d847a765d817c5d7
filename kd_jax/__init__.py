"""Distils vision backbones from strong frozen teachers, without labels.

`distill`, `embed` and the like are what the command `kd-jax` runs;
`create_model`, `load_pretrained` and `export_timm` are the interface for use
without the training program. They are imported when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from kd_jax.convert import load_pretrained
  from kd_jax.convert import to_timm as export_timm
  from kd_jax.door.distill import distill
  from kd_jax.door.embed import embed
  from kd_jax.door.finished.compare import compare
  from kd_jax.door.finished.evaluate import evaluate
  from kd_jax.door.finished.push import push
  from kd_jax.models import create_model

__version__ = "0.1.0"

_LAZY = {
  "create_model": ("kd_jax.models", "create_model"),
  "load_pretrained": ("kd_jax.convert", "load_pretrained"),
  "export_timm": ("kd_jax.convert", "to_timm"),
  "distill": ("kd_jax.door.distill", "distill"),
  "embed": ("kd_jax.door.embed", "embed"),
  "compare": ("kd_jax.door.finished.compare", "compare"),
  "push": ("kd_jax.door.finished.push", "push"),
  "evaluate": ("kd_jax.door.finished.evaluate", "evaluate"),
}

__all__ = [
  "__version__",
  "create_model",
  "load_pretrained",
  "export_timm",
  "distill",
  "embed",
  "compare",
  "push",
  "evaluate",
]


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"kd_jax has no {name!r}; it has {__all__}")
  module, symbol = _LAZY[name]
  return getattr(importlib.import_module(module), symbol)
