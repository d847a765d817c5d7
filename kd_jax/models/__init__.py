"""Model families: a package each; `VARIANTS` in its files name the models."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from kd_jax import resolve
from kd_jax.models import prefixes
from kd_jax.models.backbone import Backbone, FieldValue

_INTERNAL = {"parent", "name"}


def create_model(name: str, **overrides: FieldValue) -> Backbone:
  """Builds a model by its timm name.

  Args:
    name: 'resnet50', 'mobilenetv2_100', ...; see `list_models`.
    **overrides: fields of the family's `Model`, for instance num_classes=10.
      Lists become tuples.

  Returns:
    The module; `model.apply(variables, images)` returns taps.

  Raises:
    ValueError: unknown name or field, or a value that is not allowed.
  """
  family = resolve.symbol("models", family_of(name), "Model")
  allowed = {f.name for f in dataclasses.fields(family) if f.init} - _INTERNAL
  for field in overrides:
    if field not in allowed:
      near = resolve.near(field, allowed)
      raise ValueError(f"{name} has no option {field!r}; it has {near}")
  resolve.check_types(family, overrides, name)
  fields = {**_variants(family_of(name))[name], **overrides}
  return family(**{k: _hashable(k, v) for k, v in fields.items()})


def list_models() -> list[str]:
  """All model names; loads all families."""
  return sorted(_families())


def exists(name: str) -> bool:
  """Whether a model has this name; loads the families that may have it."""
  return _find(name) is not None


def family_of(name: str) -> str:
  """The module of `kd_jax.models` whose `VARIANTS` hold `name`.

  Raises:
    ValueError: no family has it.
  """
  family = _find(str(name))  # a number has no such name either
  if family is None:
    near = resolve.near(str(name), _families())
    raise ValueError(f"there is no model {name!r}; there are {near}")
  return family


@functools.cache
def _find(name: str) -> str | None:
  for family, starts in prefixes.OF.items():
    if name.startswith(starts) and name in _variants(family):
      return family
  return None


@functools.cache
def _families() -> dict[str, str]:
  return {
    variant: family for family in prefixes.OF for variant in _variants(family)
  }


def _variants(family: str) -> Mapping[str, Mapping[str, Any]]:
  return resolve.symbol("models", family, "VARIANTS")


def _hashable(field: str, value: FieldValue) -> FieldValue:
  if field == "dtype" and value is not None:
    return _float_dtype(value)
  return tuple(value) if isinstance(value, list) else value


def _float_dtype(value: Any) -> jnp.dtype:
  try:
    dtype = jnp.dtype(value)
  except TypeError:
    dtype = None
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(
      f"dtype is {value!r}; allowed: 'float32', 'bfloat16', 'float16', "
      "'float64' or None"
    )
  return dtype
