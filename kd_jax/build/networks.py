"""Student and teacher, as a config names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from kd_jax import convert, resolve, trees
from kd_jax.buckets import inputs, store
from kd_jax.convert import checkpoint
from kd_jax.interfaces import TeacherSource
from kd_jax.models.backbone import Backbone
from kd_jax.train.teacher import statistics
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Variables


def student(config: ConfigDict) -> Backbone:
  """The network that `config.student` names."""
  overrides = model_fields(config.student.overrides.to_dict())
  return kd_jax.create_model(
    config.student.name, **{"dtype": config.dtype, **overrides}
  )


def bare(student: Mapping[str, Any], dtype: str) -> Backbone:
  """The network of `config.student` without a classifier.

  Args:
    student: its name and overrides.
    dtype: of activations, unless the overrides name another.
  """
  overrides = model_fields(student["overrides"])
  fields = {"dtype": dtype, **overrides, "num_classes": 0}
  return kd_jax.create_model(student["name"], **fields)


def initial(student: Mapping[str, Any], init_from: str) -> Variables:
  """What the student's backbone starts from.

  Args:
    student: `config.student`.
    init_from: a run, a file, a folder or a hub name; '' is nothing.

  Returns:
    Its variables, {} for nothing.

  Raises:
    ValueError: there is no such thing, or it does not fit.
  """
  if not init_from:
    return {}
  overrides = model_fields(student["overrides"])
  return convert.load_pretrained(
    student["name"],
    _weights(init_from),
    **{**overrides, "num_classes": 0},
  )[1]


def _weights(init_from: str) -> str | Path:
  """The student of a run; what is no run, as it is."""
  if not store.is_url(init_from):
    run = Path(init_from) / "student"
    return run if run.is_dir() else init_from
  url = store.join(init_from, "student")
  return url if checkpoint.WEIGHTS in store.keys(url) else init_from


def recipe_of(run: str) -> dict[str, Any]:
  """{'name', 'overrides'} of the student of a finished run.

  Raises:
    ValueError: there is no such run, or it has no student.
  """
  away = store.is_url(run)
  folder = inputs.fetched(run, ["config.json"]) if away else Path(run)
  path = folder / "config.json"
  try:
    found = json.loads(path.read_text(encoding="utf-8"))["student"]
  except (OSError, ValueError, KeyError) as error:
    raise ValueError(
      f"{run} is no folder of a run ({path}: {error}); name what --workdir was"
    ) from error
  overrides = {
    k: v for k, v in found["overrides"].items() if k != "num_classes"
  }
  return {"name": found["name"], "overrides": overrides}


def teaching(config: ConfigDict) -> Teaching:
  """Loads the teacher that `config.teacher` names.

  Raises:
    ValueError: there is no such teacher, or it has no weights here that could
      be kept as `param_dtype` and `fsdp` say.
  """
  return teacher(config.teacher.to_dict(), config.dtype)


def teacher(wanted: Mapping[str, Any], dtype: str) -> Teaching:
  """Loads a teacher.

  Args:
    wanted: fields of `config.teacher`.
    dtype: of activations, unless its overrides name another.

  Raises:
    ValueError: as `teaching`.
  """
  load = resolve.symbol("teachers", wanted["source"], "load")
  fields = model_fields(wanted["overrides"])
  source, variables = load(
    wanted["name"], wanted["weights"], {"dtype": dtype, **fields}
  )
  variables = kept_as(wanted["param_dtype"], source, variables)
  identity = source.fingerprint or statistics.identity(
    repr(source), trees.fingerprint(variables)
  )
  if wanted["fsdp"] and source.network is None:
    raise ValueError(_no_weights("fsdp", True, wanted["source"], False))
  return Teaching(source, variables, identity, wanted["fsdp"])


def kept_as(
  dtype: str, source: TeacherSource, variables: Variables
) -> Variables:
  """Kernels and tables in another dtype; vectors stay as they are.

  Raises:
    ValueError: an unknown dtype, or there is no network.
  """
  allowed = ("float32", "bfloat16")
  if dtype not in allowed:
    raise ValueError(
      f"config.teacher.param_dtype is {dtype!r}; allowed: {list(allowed)}"
    )
  if dtype == allowed[0]:
    return variables
  if source.network is None:
    kind = type(source).__module__.rpartition(".")[2]
    raise ValueError(_no_weights("param_dtype", dtype, kind, allowed[0]))
  return jax.tree.map(
    lambda x: x.astype(dtype) if np.ndim(x) > 1 else x, variables
  )


def _no_weights(field: str, value: Any, source: str, usual: Any) -> str:
  return (
    f"config.teacher.{field} is {value!r}, but a teacher of the source "
    f"{source!r} has no weights on the devices; set "
    f"--config.teacher.{field}={usual}"
  )


def model_fields(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Arguments of create_model; configs hold lists, modules want tuples."""
  return {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in overrides.items()
  }
