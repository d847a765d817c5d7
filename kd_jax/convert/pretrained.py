"""Models together with their weights and preprocessing facts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from safetensors import numpy as safetensors_numpy

from kd_jax import models
from kd_jax.convert import checkpoint, rules, weights
from kd_jax.models.backbone import Backbone

FACTS = ("mean", "std", "interpolation", "crop_pct", "input_size")
"""Preprocessing fields of a model, named as in timm's pretrained_cfg."""

# Says how a model is trained or run, not what it is.
_NOT_STORED = {
  *FACTS,
  "num_classes",
  "drop_path_rate",
  "channel_order",
  "dtype",
  "parent",
  "name",
}


def load_pretrained(
  name: str, source: checkpoint.Source, **overrides: Any
) -> tuple[Backbone, dict[str, Any]]:
  """A model with weights from a timm checkpoint.

  Args:
    name: model name, see `kd_jax.models.create_model`.
    source: what `read_checkpoint` accepts.
    **overrides: fields of the model. They win over the checkpoint's
      config.json, which wins over the family's defaults. num_classes=0 drops
      the classifier.

  Returns:
    (model, variables); variables are float32 NumPy arrays.

  Raises:
    ValueError: unreadable source, another architecture, unfit tensors.
  """
  models.family_of(name)
  state_dict, facts = checkpoint.read_checkpoint(source)
  stored = facts.get("architecture", name)
  if stored != name:
    raise ValueError(
      f"the config.json of {source} says {stored!r}, not {name!r}. Ask for "
      f"{stored!r}, or move the config.json away if it belongs elsewhere."
    )
  fields = {k: facts[k] for k in FACTS if k in facts}
  if facts.get("global_pool"):
    fields["global_pool"] = facts["global_pool"]
  fields.update(facts.get("model_args") or {})
  fields.update(overrides)
  if "num_classes" not in fields:
    head = _classes(models.create_model(name, **fields), state_dict)
    fields["num_classes"] = facts.get("num_classes", head)
  model = models.create_model(name, **fields)
  if not facts:
    logging.warning(
      "the checkpoint has no config.json; preprocessing is assumed to be %s",
      {k: getattr(model, k) for k in FACTS},
    )
  return model, weights.from_timm(model, state_dict)


def save_timm(
  model: Backbone,
  variables: Mapping[str, Any],
  directory: str | Path,
  *,
  name: str,
) -> Path:
  """Writes model.safetensors and config.json, as timm's hub stores them.

  The file always expects RGB: the first kernel of a 'bgr' model, its mean and
  its std are flipped. `load_pretrained(name, directory)` reads it back, and
  timm does as far as it knows the model's options.

  Args:
    model: the model.
    variables: its parameters and statistics.
    directory: is created if necessary.
    name: the architecture, a name of `kd_jax.models.list_models`.

  Returns:
    The directory.

  Raises:
    ValueError: `name` is of another family, or the variables do not fit.
  """
  if models.family_of(name) != rules.family(model):
    raise ValueError(
      f"{name!r} is of the family {models.family_of(name)!r}, the model of "
      f"{rules.family(model)!r}"
    )
  tensors = weights.to_timm(model, variables)
  first = rules.first_conv(model)
  tensors[first] = np.ascontiguousarray(tensors[first][:, _to_rgb(model)])
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  safetensors_numpy.save_file(
    tensors, folder / checkpoint.WEIGHTS, metadata={"format": "pt"}
  )
  text = json.dumps(_config(model, name), indent=2) + "\n"
  (folder / checkpoint.CONFIG).write_text(text, encoding="utf-8")
  return folder


def _to_rgb(model: Backbone) -> slice:
  return slice(None, None, -1 if model.channel_order == "bgr" else 1)


def _config(model: Backbone, name: str) -> dict[str, Any]:
  """What config.json holds."""
  facts = {k: getattr(model, k) for k in FACTS}
  flip = _to_rgb(model)
  facts.update(mean=model.mean[flip], std=model.std[flip])
  return {
    "architecture": name,
    "num_classes": model.num_classes,
    "num_features": model.num_features,
    "global_pool": model.global_pool,
    "model_args": _model_args(model, name),
    "pretrained_cfg": {**facts, "num_classes": model.num_classes},
  }


def _model_args(model: Backbone, name: str) -> dict[str, Any]:
  """Fields of the architecture that differ from those of `name`."""
  plain = models.create_model(name)
  stored = {f.name for f in dataclasses.fields(model)} - _NOT_STORED
  return {
    k: getattr(model, k)
    for k in sorted(stored)
    if getattr(model, k) != getattr(plain, k)
  }


def _classes(model: Backbone, state_dict: Mapping[str, np.ndarray]) -> int:
  """Rows of the classifier in the file; 0 if there is none."""
  sizes = [len(state_dict[n]) for n in rules.head_names(model) & {*state_dict}]
  return sizes[0] if sizes else 0
