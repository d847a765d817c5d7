"""Models together with their weights and preprocessing facts.

timm names weights 'architecture.tag'. `create_model` takes architectures only,
since it loads nothing; `load_pretrained` takes both.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from safetensors import numpy as safetensors_numpy

from kd_jax import disk, models, resolve, trees
from kd_jax.convert import checkpoint, rules, weights
from kd_jax.models.backbone import Backbone, FieldValue, variable_shapes

FACTS = (
  "mean",
  "std",
  "interpolation",
  "crop_pct",
  "crop_mode",
  "input_size",
)
"""Preprocessing fields of a model, named as in timm's pretrained_cfg."""

_COLLECTIONS = ("params/", "batch_stats/")
_HEAD = (rules.HEAD,)
_ENTRY = 128  # bytes that a file says about a tensor, roughly

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
  name: str, source: checkpoint.Source = "", **overrides: FieldValue
) -> tuple[Backbone, dict[str, Any]]:
  """A model with weights from a timm checkpoint, or from `save_flax`.

  Args:
    name: model name, see `kd_jax.models.create_model`, or a name with a tag.
    source: what `read_checkpoint` accepts. May be left out after a tag:
      'resnet50.a1_in1k' alone stands for 'timm/resnet50.a1_in1k' on the hub.
    **overrides: fields of the model. They win over the checkpoint's
      config.json, which wins over the family's defaults. num_classes=0 drops
      the classifier.

  Returns:
    (model, variables); variables are float32 NumPy arrays.

  Raises:
    ValueError: no or an unreadable source, another architecture, unfit
      tensors.
  """
  architecture, _, tag = str(name).partition(".")
  models.family_of(architecture)
  if isinstance(source, str) and not source:
    if not tag:
      raise ValueError(
        f"{name!r} says no weights. Pass a file, a directory or a hub name, or "
        f"add timm's tag to the name, as in '{name}.a1_in1k'."
      )
    source = f"timm/{name}"
  state_dict, facts = checkpoint.read_checkpoint(source)
  stored = facts.get("architecture", architecture)
  if stored != architecture:
    raise ValueError(
      f"the config.json of {source} says {stored!r}, not {architecture!r}. Ask "
      f"for {stored!r}, or move the config.json away if it belongs elsewhere."
    )
  model, variables = _build(architecture, state_dict, facts, overrides)
  if not facts and not isinstance(source, Mapping):
    logging.warning(
      "%s has no config.json beside it; preprocessing is assumed to be %s",
      source,
      {k: getattr(model, k) for k in FACTS},
    )
  return model, variables


def _build(
  name: str,
  state_dict: dict[str, np.ndarray],
  facts: Mapping[str, Any],
  overrides: Mapping[str, Any],
) -> tuple[Backbone, dict[str, Any]]:
  fields = settings(name, facts, overrides)
  if "num_classes" not in fields:
    plain = models.create_model(name, **fields)
    fields["num_classes"] = _classes(plain, state_dict)
  model = models.create_model(name, **fields)
  if all(path.startswith(_COLLECTIONS) for path in state_dict):
    return model, _from_flax(model, state_dict)
  return model, weights.from_timm(model, state_dict)


def settings(
  name: str,
  facts: Mapping[str, Any],
  overrides: Mapping[str, FieldValue] | None = None,
) -> dict[str, Any]:
  """Fields of a model that a checkpoint asks for.

  Args:
    name: the architecture.
    facts: see `checkpoint.read_checkpoint`.
    overrides: fields that win over the facts.

  Returns:
    Arguments of `kd_jax.models.create_model` beside the name.
  """
  # Where a config.json does not name the mode, timm takes 'center'.
  fields: dict[str, Any] = {"crop_mode": "center"} if facts else {}
  known = {*FACTS, "global_pool", "num_classes"}
  fields.update({k: facts[k] for k in known if facts.get(k) not in (None, "")})
  if facts.get("fixed_input_size") and facts.get("input_size"):
    family = resolve.symbol("models", models.family_of(name), "Model")
    if "img_size" in {f.name for f in dataclasses.fields(family)}:
      fields["img_size"] = _side(facts["input_size"])
  fields.update(facts.get("model_args") or {})
  fields.update(overrides or {})
  return fields


def _side(size: Sequence[int]) -> int | tuple[int, ...]:
  """Of images of (channels, height, width): one number for squares."""
  _, height, width = size
  return height if height == width else (height, width)


def _from_flax(
  model: Backbone, flat: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The tensors of `save_flax`, nested and compared with the model."""
  wanted = {
    path: leaf.shape
    for path, leaf in trees.flatten(variable_shapes(model)).items()
  }
  if not model.num_classes:
    flat = {k: v for k, v in flat.items() if not trees.is_under(k, _HEAD)}
  found = {path: value.shape for path, value in flat.items()}
  wrong = sorted({path for path, _ in found.items() ^ wanted.items()})
  if wrong:
    raise ValueError(
      f"{len(wrong)} variables of the file and the model differ, {wrong[0]} "
      "is the first. Load it with the name and the config.json that it was "
      "written with."
    )
  return trees.unflatten(flat)


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
  check_family(model, name)
  tensors = weights.to_timm_rgb(model, variables)
  facts = {k: getattr(model, k) for k in FACTS}
  flip = slice(None, None, -1 if model.channel_order == "bgr" else 1)
  facts.update(mean=model.mean[flip], std=model.std[flip])
  config = _config(model, name, facts)
  return _write(tensors, config, directory, metadata={"format": "pt"})


def save_flax(
  model: Backbone,
  variables: Mapping[str, Any],
  directory: str | Path,
  *,
  name: str,
) -> Path:
  """Writes the variables as they are: one tensor per path, and config.json.

  The files are called as those of `save_timm`, and `load_pretrained(name,
  directory)` reads them back; the tensors are 'params/stem/conv1/kernel' and
  so on, in the layout used here.

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
  check_family(model, name)
  flat = trees.flatten(variables)
  tensors = {k: np.array(v, np.float32, order="C") for k, v in flat.items()}
  _from_flax(model, tensors)
  facts = {k: getattr(model, k) for k in FACTS}
  config = _config(model, name, facts)
  config["model_args"]["channel_order"] = model.channel_order
  return _write(tensors, config, directory, metadata={"format": "flax"})


def check_family(model: Backbone, name: str) -> None:
  """Raises ValueError if a model is not of the family of `name`."""
  if models.family_of(name) != rules.family(model):
    raise ValueError(
      f"{name!r} is of the family {models.family_of(name)!r}, the model of "
      f"{rules.family(model)!r}"
    )


def _write(
  tensors: dict[str, np.ndarray],
  config: Mapping[str, Any],
  directory: str | Path,
  metadata: dict[str, str],
) -> Path:
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=2) + "\n"
  disk.write(folder / checkpoint.CONFIG, text.encode())
  path = folder / checkpoint.WEIGHTS
  needed = sum(tensor.nbytes + _ENTRY for tensor in tensors.values())
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  with disk.writing(path.name, folder, needed), disk.removed(temporary):
    safetensors_numpy.save_file(tensors, temporary, metadata=metadata)
    os.replace(temporary, path)
  return folder


def _config(
  model: Backbone, name: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
  """What config.json holds."""
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
  shapes = {name: entry.shape for name, entry in rules.entries(model).items()}
  # Older files have other names for the classifier.
  known = rules.adapted(model, dict(state_dict), shapes)
  sizes = [len(known[n]) for n in rules.head_names(model) & {*known}]
  return sizes[0] if sizes else 0
