"""An untrained teacher, for smoke tests and benchmarks: it knows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kd_jax.convert import checkpoint
from kd_jax.models import create_model
from kd_jax.models.backbone import variable_shapes
from kd_jax.teachers.online import Source
from kd_jax.types import Variables


def load(
  name: str, weights: checkpoint.Source, overrides: Mapping[str, Any]
) -> tuple[Source, Variables]:
  """A teacher with random kernels and neutral normalisation.

  Raises:
    ValueError: weights are given, which this source would not use.
  """
  if weights:
    raise ValueError(
      f"the teacher source 'random' loads no weights, and got {weights!r}. "
      "Set --config.teacher.source=online to use them."
    )
  model = create_model(name, **overrides)
  rng = np.random.default_rng(0)
  draw = jax.tree_util.tree_map_with_path
  return Source(model), draw(
    lambda path, x: _leaf(path, x, rng), variable_shapes(model)
  )


def _leaf(
  path: jax.tree_util.KeyPath,
  spec: jax.ShapeDtypeStruct,
  rng: np.random.Generator,
) -> np.ndarray:
  if len(spec.shape) > 1:
    scale = np.sqrt(2 / np.prod(spec.shape[:-1]))
    drawn = scale * rng.standard_normal(spec.shape, np.float32)
    return drawn.astype(np.float32)  # NumPy's scalar made it float64.
  one = path[-1].key in ("scale", "var")
  return np.full(spec.shape, float(one), np.float32)
