"""The naming rules of a family, read in both directions.

A family's `RULES` is a tuple of (timm name, path here, layout). Both names
may hold placeholders such as '{s}', which stand for integers. Layouts:

  conv    OIHW there, HWIO here
  linear  (out, in) there, (in, out) here
  copy    the same
  norm    four 'copy' rules: weight, bias, running_mean, running_var there;
          params/.../{scale,bias}, batch_stats/.../{mean,var} here
"""

from __future__ import annotations

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import resolve, trees
from kd_jax.models.backbone import Backbone

HEAD = "params/head"

_NORM = (
  ("weight", "params", "scale"),
  ("bias", "params", "bias"),
  ("running_mean", "batch_stats", "mean"),
  ("running_var", "batch_stats", "var"),
)
_TO_TIMM = {"conv": (3, 2, 0, 1), "linear": (1, 0)}
_FROM_TIMM = {"conv": (2, 3, 1, 0), "linear": (1, 0)}

Rule = tuple[str, str, str]


class Entry(NamedTuple):
  """One tensor, as both sides see it.

  Attributes:
    path: 'params/...' or 'batch_stats/...', here.
    layout: 'conv', 'linear' or 'copy'.
    shape: its shape in timm's layout.
  """

  path: str
  layout: str
  shape: tuple[int, ...]


def family(model: Backbone) -> str:
  """Name of the module of `kd_jax.models` that defines the model."""
  return type(model).__module__.rsplit(".", 1)[-1]


def expanded(model: Backbone) -> list[Rule]:
  """The rules of the family, with 'norm' written out."""
  rules = []
  for theirs, ours, layout in resolve.symbol("models", family(model), "RULES"):
    if layout != "norm":
      rules.append((theirs, ours, layout))
      continue
    inner = ours.removeprefix("params/")
    for leaf, collection, name in _NORM:
      path = f"{collection}/{inner}/{name}"
      rules.append((f"{theirs}.{leaf}", path, "copy"))
  return rules


def entries(model: Backbone) -> dict[str, Entry]:
  """{timm name: Entry} of every tensor of the model; computes shapes only."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  rules = [(_pattern(o), t, layout) for t, o, layout in expanded(model)]
  found = {}
  for path, leaf in trees.flatten(shapes).items():
    name, layout = _translate(path, rules)
    axes = _TO_TIMM.get(layout, tuple(range(leaf.ndim)))
    shape = tuple(leaf.shape[a] for a in axes)
    found[name] = Entry(path, layout, shape)
  return found


def head_names(model: Backbone) -> set[str]:
  """Names that timm gives to the classifier's tensors."""
  rules = expanded(model)
  return {t for t, path, _ in rules if trees.is_under(path, [HEAD])}


def first_conv(model: Backbone) -> str:
  """The name, in timm, of the kernel that reads the image: the first rule."""
  return expanded(model)[0][0]


def to_ours(array: np.ndarray, layout: str) -> np.ndarray:
  """A float32 copy in the layout used here."""
  axes = _FROM_TIMM.get(layout)
  turned = array if axes is None else array.transpose(axes)
  return np.array(turned, np.float32, order="C")


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
  """A float32 copy in timm's layout."""
  axes = _TO_TIMM.get(layout)
  turned = array if axes is None else array.transpose(axes)
  return np.array(turned, np.float32, order="C")


def _pattern(template: str) -> re.Pattern[str]:
  return re.compile(
    re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(template))
  )


def _translate(
  path: str, rules: list[tuple[re.Pattern[str], str, str]]
) -> tuple[str, str]:
  for pattern, template, layout in rules:
    match = pattern.fullmatch(path)
    if match:
      return template.format(**match.groupdict()), layout
  raise ValueError(f"RULES of this model's family have no line for {path!r}")
