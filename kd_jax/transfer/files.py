"""A segmentation network on disk: the backbone as timm stores it, the heads.

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
from kd_jax.transfer.heads.base import MapHead
from kd_jax.transfer.segmenter import Segmenter
from kd_jax.types import Variables

_BACKBONE, _HEADS = "student", "heads"
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def save(
  model: Segmenter,
  variables: Variables,
  directory: Path,
  *,
  name: str,
  classes: Sequence[str],
) -> None:
  """Writes a network to a folder.

  Args:
    model: the network.
    variables: its parameters and statistics, on the host.
    directory: is created if necessary.
    name: architecture of the backbone.
    classes: names of the classes of the masks.

  Raises:
    ValueError: the disk is full.
  """
  parts = {k: v.get("backbone", {}) for k, v in variables.items()}
  convert.save_timm(model.backbone, parts, directory / _BACKBONE, name=name)
  rest = {
    kind: {k: v for k, v in tree.items() if k != "backbone"}
    for kind, tree in variables.items()
  }
  flat = trees.flatten(rest)
  tensors = {k: np.array(v, np.float32, order="C") for k, v in flat.items()}
  folder = directory / _HEADS
  folder.mkdir(parents=True, exist_ok=True)
  about = {
    "student": name,
    "classes": list(classes),
    "head": _fields(model.head),
    "aux": _fields(model.aux) if model.aux is not None else None,
  }
  disk.write(folder / _WEIGHTS, safetensors_numpy.save(tensors))
  disk.write(folder / _CONFIG, json.dumps(about, indent=2).encode())


def load(directory: str | Path) -> tuple[Segmenter, Variables]:
  """The network that `save` wrote, and its variables.

  Raises:
    ValueError: there is none, or a file is damaged.
  """
  folder = Path(directory) / _HEADS
  try:
    about = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    name, classes = about["student"], len(about["classes"])
    stored = [about["head"], about["aux"]]
    tensors = safetensors_numpy.load_file(folder / _WEIGHTS)
  except (OSError, ValueError, KeyError, SafetensorError) as error:
    raise ValueError(
      f"{directory} holds no segmentation network ({error!r}); name the folder "
      "of a finished run of the task 'segment', such as trials/final_..."
    ) from error
  backbone, own = convert.load_pretrained(name, Path(directory) / _BACKBONE)
  shared = {"num_classes": classes}
  heads = [
    resolve.build("transfer.heads", "Head", {**fields, **shared})
    for fields in stored
    if fields
  ]
  rest = trees.unflatten(tensors)
  found = {
    kind: {"backbone": own.get(kind, {}), **rest.get(kind, {})}
    for kind in ("params", "batch_stats")
  }
  return Segmenter(backbone, *heads), found


def _fields(head: MapHead) -> Mapping[str, Any]:
  """Name and fields of a head, as a config writes them."""
  internal = {"parent", "name", "dtype"}  # the type is a matter of the run
  own = [f.name for f in dataclasses.fields(head) if f.name not in internal]
  values = {k: getattr(head, k) for k in own}
  return {"name": type(head).__module__.rpartition(".")[2], **values}
