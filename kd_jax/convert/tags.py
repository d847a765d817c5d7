"""Which of timm's pretrained tags load here, by the shapes of timm's models.

timm builds each model with the settings of its tag on PyTorch's meta device,
which holds names and shapes and no numbers; nothing is downloaded. A tag loads
if every tensor that `from_timm` asks for is there with its shape, and if the
family's `adapt` drops what is there beside them, such as tables of indices.

Needs `torch` and `timm`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax import models
from kd_jax.convert import pretrained, rules, weights
from kd_jax.models.backbone import Backbone

Shapes = Mapping[str, tuple[int, ...]]
"""{timm name: shape} of a state_dict."""

NEEDED = ("torch", "timm")
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Tag:
  """One of timm's sets of weights.

  Attributes:
    architecture: 'resnet50'.
    tag: 'a1_in1k'.
    problem: why it does not load; '' if it does.
  """

  architecture: str
  tag: str
  problem: str

  @property
  def name(self) -> str:
    """As `load_pretrained` takes it."""
    return f"{self.architecture}.{self.tag}"


def available() -> bool:
  """Whether timm can be asked."""
  return all(map(importlib.util.find_spec, NEEDED))


def version() -> str:
  """'timm 1.0.31'."""
  return f"timm {_timm().__version__}"


def known() -> dict[str, list[str]]:
  """{architecture: its tags} of all pretrained weights of timm."""
  found: dict[str, list[str]] = {}
  for name in _timm().list_pretrained():
    architecture, _, tag = name.partition(".")
    found.setdefault(architecture, []).append(tag)
  return found


def check(architecture: str, tags: Sequence[str]) -> Iterator[Tag]:
  """Compares tags of one architecture; equal settings are compared once."""
  if not models.exists(architecture):
    for tag in tags:
      yield Tag(architecture, tag, "there is no such architecture here")
    return
  seen: dict[tuple[Any, ...], str] = {}
  for tag in tags:
    config = _timm().get_pretrained_cfg(f"{architecture}.{tag}").to_dict()
    key = _settings(config)
    if key not in seen:
      seen[key] = _compare(f"{architecture}.{tag}", config)
    yield Tag(architecture, tag, seen[key])


def differences(model: Backbone, given: Shapes) -> list[str]:
  """What keeps tensors of these shapes from being those of a model.

  Args:
    model: of this package.
    given: of timm's model, counters of BatchNorm left out.

  Returns:
    A line each: tensors that are missing, of another shape, or unknown.
  """
  wanted = {k: entry.shape for k, entry in rules.entries(model).items()}
  out = [f"no {name}" for name in wanted if name not in given]
  out += [
    f"{name} is {given[name]}, here {shape}"
    for name, shape in wanted.items()
    if name in given and given[name] != shape
  ]
  if set(given) - set(wanted):
    # Views of one number.
    arrays = {
      k: np.broadcast_to(np.float32(0), shape) for k, shape in given.items()
    }
    left = rules.adapted(model, arrays, wanted)
    out += [f"unknown {name}" for name in left if name not in wanted]
  return out


def _compare(name: str, config: Mapping[str, Any]) -> str:
  import torch

  architecture = str(config["architecture"])
  with torch.device("meta"):
    theirs = _timm().create_model(name)
  facts = {**config, "num_classes": theirs.num_classes}
  if isinstance(getattr(theirs, "global_pool", None), str):
    facts["global_pool"] = theirs.global_pool
  given = {
    k: tuple(v.shape)
    for k, v in theirs.state_dict().items()
    if not k.endswith(weights.COUNTER)
  }
  fields = pretrained.settings(architecture, facts)
  try:
    found = differences(models.create_model(architecture, **fields), given)
  except ValueError as error:
    return str(error)
  more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
  return "; ".join(found[:_SHOWN]) + more


def _settings(config: Mapping[str, Any]) -> tuple[Any, ...]:
  """What of a tag may change a shape."""
  size = config["input_size"] if config.get("fixed_input_size") else None
  rest = {
    k: config[k]
    for k in ("num_classes", "global_pool", "model_args")
    if k in config
  }
  return size, repr(rest)


def _timm() -> types.ModuleType:
  try:
    import timm
  except ImportError as error:
    raise ValueError(
      "timm's pretrained tags cannot be asked for: install the extra, "
      "pip install 'kd_jax[torch]'"
    ) from error
  return timm
