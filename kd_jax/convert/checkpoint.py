"""Reads checkpoints: files, directories and Hugging Face hub names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from absl import logging
from safetensors import numpy as safetensors_numpy

from kd_jax.buckets import inputs, store

StateDict = dict[str, np.ndarray]
Source = str | Path | Mapping[str, Any]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_PICKLED = (".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model", "model_ema", "module")
_LIFTED = ("architecture", "num_classes", "global_pool", "model_args")


def read_checkpoint(source: Source) -> tuple[StateDict, dict[str, Any]]:
  """Tensors and facts of a checkpoint.

  Args:
    source: a .safetensors, .pth, .pt or .bin file; a directory that holds
      model.safetensors; either of them in a gs:// or s3:// bucket; a hub
      name such as 'timm/resnet50.a1_in1k', with or without 'hf-hub:'; or a
      state_dict. A config.json next to the weights, as timm writes it, is
      read too.

  Returns:
    ({name: float32 array}, facts). The names have lost a 'module.' prefix.
    The facts are timm's pretrained_cfg plus 'architecture', 'num_classes',
    'global_pool' and 'model_args' where the config has them, else empty.

  Raises:
    ValueError: there is no such source, it is damaged, or it needs PyTorch.
  """
  if isinstance(source, Mapping):
    return _clean(source, "the given dict"), {}
  path = _local(str(source))
  if path.is_dir():
    path = path / WEIGHTS
    if not path.is_file():
      raise ValueError(f"the directory {path.parent} has no {WEIGHTS}")
  if path.suffix == ".safetensors":
    tensors = _read_safetensors(path)
  elif path.suffix in _PICKLED:
    tensors = _read_pickled(path)
  else:
    raise ValueError(
      f"{path} is no checkpoint: allowed are .safetensors, "
      f"{', '.join(_PICKLED)} and a directory with {WEIGHTS}"
    )
  return _clean(tensors, str(path)), _read_config(path.parent / CONFIG)


def _local(source: str) -> Path:
  if store.is_url(source):
    return _fetched(source)
  name = re.sub("^hf[-_]hub:", "", source)
  path = Path(source).expanduser()
  if name == source and path.exists():
    return path
  looks_local = path.suffix in (".safetensors", *_PICKLED)
  is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not looks_local
  if name == source and not is_hub:
    raise ValueError(
      f"there is no file or directory {source!r}. A hub name looks like "
      "'timm/resnet50.a1_in1k'."
    )
  return _download(name)


def _fetched(url: str) -> Path:
  """The weights of a bucket, and config.json beside them, in the cache."""
  folder, _, name = url.rstrip("/").rpartition("/")
  if not name.endswith((".safetensors", *_PICKLED)):
    folder, name = url.rstrip("/"), WEIGHTS
  path = inputs.fetched(folder, [name, CONFIG]) / name
  if not path.exists():
    raise ValueError(f"there is no {folder}/{name}")
  return path


def _download(name: str) -> Path:
  import huggingface_hub  # only a hub name needs it

  try:
    folder = huggingface_hub.snapshot_download(
      name, allow_patterns=[WEIGHTS, CONFIG]
    )
  # The client passes on errors of its HTTP library, which share no base.
  except Exception as error:
    raise ValueError(
      f"cannot download {name!r} ({type(error).__name__}), and it is not in "
      f"the local cache. On a machine with network run 'hf download {name} "
      f"{WEIGHTS} {CONFIG} --local-dir DIR', and pass DIR instead."
    ) from error
  return Path(folder)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
  try:
    return safetensors_numpy.load_file(path)
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(f"{path} cannot be read: {error}") from error


def _read_pickled(path: Path) -> Mapping[str, Any]:
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f"{path} is a PyTorch file: pip install torch, or convert it to "
      ".safetensors"
    ) from error
  try:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
  # Damage shows as pickle, zip, runtime, key or end-of-file errors.
  except Exception as error:
    raise ValueError(
      f"{path} cannot be read ({type(error).__name__}): it is damaged, or "
      "holds more than tensors. Save the state_dict alone."
    ) from error
  for key in _WRAPPERS:
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  if not isinstance(loaded, Mapping):
    raise ValueError(f"{path} holds a {type(loaded).__name__}, no state_dict")
  return {
    name: value.detach().float().numpy()
    if isinstance(value, torch.Tensor) and value.is_floating_point()
    else value
    for name, value in loaded.items()
  }


def _clean(tensors: Mapping[str, Any], origin: str) -> StateDict:
  if not tensors:
    raise ValueError(f"{origin} holds no tensors")
  clean = {}
  for name, value in tensors.items():
    if not hasattr(value, "shape"):
      raise ValueError(
        f"entry {name!r} of {origin} is a {type(value).__name__}, no tensor. "
        f"Pass the state_dict alone, or under one of {list(_WRAPPERS)}."
      )
    array = np.array(value)
    if jnp.issubdtype(array.dtype, jnp.floating):
      array = array.astype(np.float32)
    clean[name.removeprefix("module.")] = array
  return clean


def _read_config(path: Path) -> dict[str, Any]:
  if not path.is_file():
    return {}
  try:
    config = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  if not isinstance(config, dict) or "architecture" not in config:
    logging.warning("%s is not timm's (no 'architecture'); ignored", path)
    return {}
  facts = dict(config.get("pretrained_cfg") or {})
  facts.update({k: config[k] for k in _LIFTED if k in config})
  return facts
