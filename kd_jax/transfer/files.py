"""A network with heads on disk: the backbone as timm stores it, the heads.

student/                the backbone, see `convert.save_timm`
heads/model.safetensors parameters and statistics of the heads, by path
heads/config.json       which heads, their fields, and the classes
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from kd_jax import convert, disk, resolve, trees
from kd_jax.models.backbone import Backbone
from kd_jax.transfer.heads.base import MapHead
from kd_jax.transfer.segmenter import Segmenter
from kd_jax.types import Variables

_BACKBONE, _HEADS = "student", "heads"
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"

About = Mapping[str, Any]
"""What config.json holds: 'student', 'classes', and what the heads are."""


def save(
  model: Segmenter,
  variables: Variables,
  directory: Path,
  *,
  name: str,
  classes: Sequence[str],
) -> None:
  """Writes a segmentation network to a folder.

  Args:
    model: the network.
    variables: its parameters and statistics, on the host.
    directory: is created if necessary.
    name: architecture of the backbone.
    classes: names of the classes of the masks.

  Raises:
    ValueError: the disk is full.
  """
  about = {
    "student": name,
    "classes": list(classes),
    "head": _head_fields(model.head),
    "aux": _head_fields(model.aux) if model.aux is not None else None,
  }
  write(model.backbone, variables, directory, about)


def load(directory: str | Path) -> tuple[Segmenter, Variables]:
  """The network that `save` wrote, and its variables.

  Raises:
    ValueError: there is none, or a file is damaged.
  """
  about, backbone, variables = read(
    directory, ("head", "aux"), task="segment", kind="segmentation network"
  )
  shared = {"num_classes": len(about["classes"])}
  heads = [
    resolve.build("transfer.heads", "Head", {**fields, **shared})
    for fields in (about["head"], about["aux"])
    if fields
  ]
  return Segmenter(backbone, *heads), variables


def write(
  backbone: Backbone, variables: Variables, directory: Path, about: About
) -> None:
  """Writes a backbone and what is on it.

  Args:
    backbone: whose variables are those below 'backbone'.
    variables: of all, on the host.
    directory: is created if necessary.
    about: see `About`.

  Raises:
    ValueError: the disk is full.
  """
  parts = {k: v.get("backbone", {}) for k, v in variables.items()}
  where, name = directory / _BACKBONE, about["student"]
  convert.save_timm(backbone, parts, where, name=name)
  rest = {
    kind: {k: v for k, v in tree.items() if k != "backbone"}
    for kind, tree in variables.items()
  }
  flat = trees.flatten(rest)
  tensors = {k: np.array(v, np.float32, order="C") for k, v in flat.items()}
  folder = directory / _HEADS
  folder.mkdir(parents=True, exist_ok=True)
  disk.write(folder / _WEIGHTS, safetensors_numpy.save(tensors))
  disk.write(folder / _CONFIG, json.dumps(about, indent=2).encode())


def read(
  directory: str | Path, needed: tuple[str, ...], *, task: str, kind: str
) -> tuple[dict[str, Any], Backbone, Variables]:
  """What `write` wrote.

  Args:
    directory: the same.
    needed: names that `about` must have, beside 'student' and 'classes'.
    task: whose runs leave such folders, for messages.
    kind: of network, for messages.

  Raises:
    ValueError: there is none, or a file is damaged.
  """
  folder = Path(directory) / _HEADS
  try:
    about = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    _ = [about[field] for field in ("student", "classes", *needed)]
    tensors = safetensors_numpy.load_file(folder / _WEIGHTS)
  except (OSError, ValueError, KeyError, SafetensorError) as error:
    raise ValueError(
      f"{directory} holds no {kind} ({error!r}); name the folder of a finished "
      f"run of the task {task!r}, such as trials/final_..."
    ) from error
  where = Path(directory) / _BACKBONE
  backbone, own = convert.load_pretrained(about["student"], where)
  rest = trees.unflatten(tensors)
  found = {
    part: {"backbone": own.get(part, {}), **rest.get(part, {})}
    for part in ("params", "batch_stats")
  }
  return about, backbone, found


def fields_of(part: object, *without: str) -> dict[str, Any]:
  """The fields of a dataclass or module, as a config writes them.

  Args:
    part: the object.
    *without: names of fields that are left out.
  """
  # The compute dtype is a matter of the run.
  internal = {"parent", "name", "dtype", *without}
  if not dataclasses.is_dataclass(part):
    raise TypeError(f"{part!r} has no fields")
  own = [f.name for f in dataclasses.fields(part) if f.name not in internal]
  return {name: getattr(part, name) for name in own}


def _head_fields(head: MapHead) -> dict[str, Any]:
  """Name and fields of a head."""
  name = type(head).__module__.rpartition(".")[2]
  return {"name": name, **fields_of(head)}
