"""What this machine has, and what a run will miss; one line each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kd_jax import disk, workdir
from kd_jax.door import machine

_ROOM = 2 * 10**9  # bytes for a run of a small student with its checkpoints
_PATIENCE = 5.0  # seconds that the hub has to answer
_PROBE = "timm/resnet18.a1_in1k"
_OPTIONAL = ("torch", "timm")


class Finding(NamedTuple):
  """One line.

  Attributes:
    what: was looked at.
    text: what was found.
    good: false where a run cannot work.
  """

  what: str
  text: str
  good: bool = True

  def __str__(self) -> str:
    return f"{'ok ' if self.good else 'BAD'}  {self.what:<9} {self.text}"


def examine() -> list[Finding]:
  """Looks at everything; never raises."""
  return [
    _try("python", _python),
    _try("packages", _packages),
    _try("optional", _optional),
    _try("devices", _devices),
    _try("memory", _memory),
    _try("cache", _cache),
    _try("disk", _disk),
    _try("weights", _weights),
  ]


def _try(what: str, look: Callable[[], tuple[str, bool]]) -> Finding:
  try:
    text, good = look()
  except Exception as error:  # Whatever is wrong with this machine.
    first = (str(error).splitlines() or [""])[0]
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    text, good = kind + first, False
  return Finding(what, text, good)


def _python() -> tuple[str, bool]:
  return f"{platform.python_version()} on {platform.platform()}", True


def _packages() -> tuple[str, bool]:
  found = _versions(workdir.PACKAGES)
  missing = [name for name, version in found.items() if not version]
  if missing:
    return f"missing: {', '.join(missing)}; pip install {missing[0]}", False
  return ", ".join(f"{name} {v}" for name, v in found.items()), True


def _optional() -> tuple[str, bool]:
  found = _versions(_OPTIONAL)
  here = [f"{name} {version}" for name, version in found.items() if version]
  if len(here) == len(found):
    return f"{', '.join(here)}: .pth files and all teachers of timm", True
  missing = " ".join(name for name, version in found.items() if not version)
  return (f"no {missing}: only for .pth files and other teachers of timm", True)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = ""
  return found


def _devices() -> tuple[str, bool]:
  found = machine.look()
  note = "; a GPU or TPU is 10 to 100 times as fast" if found.cpu else ""
  return f"{found}{note}", True


def _memory() -> tuple[str, bool]:
  size = machine.host_memory()
  return (disk.size(size) if size else "unknown"), True


def _cache() -> tuple[str, bool]:
  chosen = os.environ.get("KD_JAX_CACHE") or "~/.cache/kd_jax"
  place = Path(chosen).expanduser()
  try:
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place):
      pass
  except OSError as error:
    return (
      f"{place} cannot be written ({error.strerror}); programs are compiled "
      "anew each time. Set JAX_COMPILATION_CACHE_DIR and KD_JAX_CACHE"
    ), True
  return f"{place} can be written", True


def _disk() -> tuple[str, bool]:
  here = Path.cwd()
  free = shutil.disk_usage(here).free
  text = f"{disk.size(free)} free in {here}"
  if not os.access(here, os.W_OK):
    return f"{text}, which cannot be written; give --out", True
  if free < _ROOM:
    return f"{text}; a run needs {disk.size(_ROOM)}", False
  return text, True


def _weights() -> tuple[str, bool]:
  from huggingface_hub import HfApi, constants

  cache = constants.HF_HUB_CACHE
  try:
    HfApi().model_info(_PROBE, timeout=_PATIENCE)
  # The client passes on errors of its HTTP library, which share no base.
  except Exception as error:
    return (
      f"the Hugging Face hub cannot be reached ({type(error).__name__}); "
      f"weights must be files, or in {cache}"
    ), True
  return f"the Hugging Face hub can be reached; they are kept in {cache}", True
