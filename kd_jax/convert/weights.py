"""timm's state_dict <-> variables, every tensor exactly once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from kd_jax import models, resolve, trees
from kd_jax.convert import rules
from kd_jax.models.backbone import Backbone

COUNTER = ".num_batches_tracked"
"""Ends the name of a counter of BatchNorm in PyTorch."""

_SHOWN = 5
_TRACED = 12


def from_timm(
  model: Backbone, state_dict: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Variables of `model` from timm's tensors.

  Args:
    model: with num_classes=0 the classifier of the file is dropped.
    state_dict: {timm name: array in PyTorch's layout}.

  Returns:
    {'params': ..., 'batch_stats': ...}: nested dicts of float32 copies.

  Raises:
    ValueError: names every missing, unknown or misshapen tensor.
  """
  wanted = rules.entries(model)
  expected = {name: e.shape for name, e in wanted.items()}
  given = {k: v for k, v in state_dict.items() if not k.endswith(COUNTER)}
  given = rules.adapted(model, given, expected)
  if not model.num_classes:
    dropped = rules.head_names(model)
    given = {k: v for k, v in given.items() if k not in dropped}
  shapes = {name: tuple(np.shape(v)) for name, v in given.items()}
  if shapes != expected:
    raise ValueError(_complaint(model, shapes, expected))
  for name, value in given.items():
    _check_float(name, value)
  flat = {
    entry.path: rules.to_ours(np.asarray(given[name]), entry.layout)
    for name, entry in wanted.items()
  }
  return trees.unflatten(flat)


def to_timm(
  model: Backbone, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The state_dict of timm; the inverse of `from_timm`, bit for bit.

  Args:
    model: the model that `variables` belong to.
    variables: {'params': ..., 'batch_stats': ...}.

  Returns:
    {timm name: float32 array in PyTorch's layout}; the counters of
    BatchNorm, which have no counterpart here, are int64 zeros.

  Raises:
    ValueError: `variables` are not those of `model`.
  """
  wanted = rules.entries(model)
  flat = trees.flatten(
    {k: variables[k] for k in ("params", "batch_stats") if k in variables}
  )
  theirs = {entry.path: name for name, entry in wanted.items()}
  unknown = sorted(set(flat) - set(theirs))
  missing = sorted(set(theirs) - set(flat))
  if unknown or missing:
    raise ValueError(
      f"these variables are not the model's: it lacks {_some(unknown)}, and "
      f"they lack {_some(missing)}"
    )
  out = {}
  for name, (path, layout, shape) in wanted.items():
    out[name] = rules.to_theirs(np.asarray(flat[path]), layout)
    if out[name].shape != shape:
      raise ValueError(
        f"variable {path} becomes {out[name].shape} as {name}; the model has "
        f"{shape}"
      )
    if name.endswith(".running_var"):
      counter = name.removesuffix(".running_var") + COUNTER
      out[counter] = np.zeros((), np.int64)
  return out


def to_timm_rgb(
  model: Backbone, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """`to_timm` of a model that then reads RGB, whatever it read before."""
  tensors = to_timm(model, variables)
  if model.channel_order == "bgr":
    first = rules.first_conv(model)
    tensors[first] = np.ascontiguousarray(tensors[first][:, ::-1])
  return tensors


def _check_float(name: str, value: np.ndarray) -> None:
  dtype = np.asarray(value).dtype
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f"tensor {name} is {dtype}; weights are floating point")


def _complaint(
  model: Backbone,
  shapes: Mapping[str, tuple[int, ...]],
  expected: Mapping[str, tuple[int, ...]],
) -> str:
  missing = sorted(set(expected) - set(shapes))
  extra = sorted(set(shapes) - set(expected))
  wrong = [
    f"{n} (file {shapes[n]}, model {expected[n]})"
    for n in expected
    if n in shapes and shapes[n] != expected[n]
  ]
  text = "the tensors do not fit the model:"
  for what, names in (
    ("missing", missing),
    ("unknown", extra),
    ("of another shape", wrong),
  ):
    if names:
      text += f" {len(names)} {what}: {_some(names)};"
  return f"{text} {_advice(model, shapes, expected)}"


def _advice(
  model: Backbone,
  shapes: Mapping[str, tuple[int, ...]],
  expected: Mapping[str, tuple[int, ...]],
) -> str:
  head = rules.head_names(model)
  differ = {n for n, _ in shapes.items() ^ expected.items()}
  if differ <= head:
    sizes = [shapes[n][0] for n in head if n in shapes and shapes[n]]
    there = sizes[0] if sizes else 0
    return (
      f"only the classifier differs: pass num_classes={there} as in the file"
      f"{', or 0 to drop it' if there else ''}."
    )
  fitting = _fitting(shapes)
  if fitting:
    return f"They fit {' or '.join(map(repr, fitting))}."
  return "Is it the right model name, and an unchanged timm checkpoint?"


def _fitting(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
  """Known variants whose backbones have exactly these tensors; not all."""
  fitting, traced = [], 0
  families = {
    family
    for family in resolve.names("models", "VARIANTS")
    if rules.speaks(family, shapes)
  }
  for name in models.list_models():
    if models.family_of(name) not in families:
      continue
    # Most variants are told apart by their first stage, in milliseconds.
    stem = {k: e.shape for k, e in _stem(name).items()}
    if traced == _TRACED or not stem.items() <= shapes.items():
      continue
    traced += 1
    model = _headless(name)
    head = rules.head_names(model)
    whole = {k: e.shape for k, e in rules.entries(model).items()}
    if {k: v for k, v in shapes.items() if k not in head} == whole:
      fitting.append(name)
  return fitting


@functools.cache
def _headless(name: str) -> Backbone:
  return models.create_model(name, num_classes=0)


@functools.cache
def _stem(name: str) -> dict[str, rules.Entry]:
  return rules.entries(_headless(name), end="stem")


def _some(names: list[str]) -> str:
  shown = ", ".join(names[:_SHOWN]) or "nothing"
  rest = len(names) - _SHOWN
  return f"{shown} and {rest} more" if rest > 0 else shown
