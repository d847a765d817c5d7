"""The naming rules of a family, read in both directions.

A family's `RULES` is a tuple of (timm name, path here, layout). Both names
may hold placeholders such as '{s}', which stand for integers. Layouts:

  conv       OIHW there, HWIO here
  linear     (out, in) there, (in, out) here
  pointwise  (out, in, 1, 1) there, (in, out) here
  planes     (c, 1, 1) there, (1, 1, c) here
  taps       (out, in, k) there, (k, in) here, for one output
  copy       the same

and, for a layer with several tensors, 'weight' and 'bias' there:

  norm    batch normalisation, with running_mean and running_var there;
          params/.../{scale,bias}, batch_stats/.../{mean,var} here
  affine  layer or group normalisation; params/.../{scale,bias} here
  dense   'linear' and a bias; params/.../{kernel,bias} here
  conv2d  'conv' and a bias; params/.../{kernel,bias} here

A family may also define `adapt(state_dict, shapes)`: it renames what older or
foreign files call differently, drops buffers, and resizes what depends on the
image size; `shapes` are {timm name: shape} of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kd_jax import resolve, trees
from kd_jax.models.backbone import Backbone, variable_shapes

HEAD = "params/head"
"""The classifier; a family may have statistics there, too."""

_LAYERS = {
  "norm": (
    ("weight", "params", "scale", "copy"),
    ("bias", "params", "bias", "copy"),
    ("running_mean", "batch_stats", "mean", "copy"),
    ("running_var", "batch_stats", "var", "copy"),
  ),
  "affine": (
    ("weight", "params", "scale", "copy"),
    ("bias", "params", "bias", "copy"),
  ),
  "dense": (
    ("weight", "params", "kernel", "linear"),
    ("bias", "params", "bias", "copy"),
  ),
  "conv2d": (
    ("weight", "params", "kernel", "conv"),
    ("bias", "params", "bias", "copy"),
  ),
}

Rule = tuple[str, str, str]


class Entry(NamedTuple):
  """One tensor, as both sides see it.

  Attributes:
    path: 'params/...' or 'batch_stats/...', here.
    layout: 'conv', 'linear', 'pointwise', 'planes',
      'taps' or 'copy'.
    shape: its shape in timm's layout.
  """

  path: str
  layout: str
  shape: tuple[int, ...]


def family(model: Backbone) -> str:
  """Name of the module of `kd_jax.models` that defines the model."""
  return type(model).__module__.rsplit(".", 1)[-1]


def expanded(model: Backbone) -> list[Rule]:
  """The rules of the model's family, those of whole layers written out."""
  return written_out(family(model))


def written_out(family: str) -> list[Rule]:
  """The rules of a family, with those of whole layers written out."""
  rules = []
  for theirs, ours, layout in resolve.symbol("models", family, "RULES"):
    if layout not in _LAYERS:
      rules.append((theirs, ours, layout))
      continue
    inner = ours.removeprefix("params/")
    for leaf, collection, name, how in _LAYERS[layout]:
      rules.append((f"{theirs}.{leaf}", f"{collection}/{inner}/{name}", how))
  return rules


def speaks(family: str, names: Iterable[str]) -> bool:
  """Whether all of timm's `names` may be tensors of a family."""
  patterns = [_pattern(theirs) for theirs, *_ in written_out(family)]
  return all(any(p.fullmatch(name) for p in patterns) for name in names)


def entries(model: Backbone, end: str = "head") -> dict[str, Entry]:
  """{timm name: Entry} of every tensor up to a stage; computes shapes only."""
  shapes = variable_shapes(model, end=end)
  rules = [(_pattern(o), t, layout) for t, o, layout in expanded(model)]
  found = {}
  for path, leaf in trees.flatten(shapes).items():
    name, layout = _translate(path, rules)
    # A view of one number: only its shape is turned.
    shape = _turn(np.broadcast_to(np.float32(0), leaf.shape), layout).shape
    found[name] = Entry(path, layout, shape)
  return found


def adapted(
  model: Backbone,
  state_dict: dict[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
  """What the family's `adapt` makes of a file's tensors."""
  adapt = resolve.optional("models", family(model), "adapt")
  return adapt(state_dict, shapes) if adapt else state_dict


def head_names(model: Backbone) -> set[str]:
  """Names that timm gives to the classifier's tensors."""
  heads = (HEAD, HEAD.replace("params", "batch_stats"))
  rules = expanded(model)
  return {t for t, path, _ in rules if trees.is_under(path, heads)}


def first_conv(model: Backbone) -> str:
  """The name, in timm, of the kernel that reads the image: the first rule."""
  names = entries(model, end="stem")
  return next(name for name, *_ in expanded(model) if name in names)


def to_ours(array: np.ndarray, layout: str) -> np.ndarray:
  """A float32 copy in the layout used here."""
  if layout == "pointwise":
    array = array[:, :, 0, 0]
  if layout == "taps":
    array = array[0].T
  axes = {
    "conv": (2, 3, 1, 0),
    "linear": (1, 0),
    "planes": (1, 2, 0),
    "pointwise": (1, 0),
  }
  turned = array.transpose(axes.get(layout, range(array.ndim)))
  return np.array(turned, np.float32, order="C")


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
  """A float32 copy in timm's layout."""
  return np.array(_turn(array, layout), np.float32, order="C")


def _turn(array: np.ndarray, layout: str) -> np.ndarray:
  if layout == "pointwise":
    return array.transpose(1, 0)[:, :, None, None]
  if layout == "taps":
    return array.T[None]
  axes = {"conv": (3, 2, 0, 1), "linear": (1, 0), "planes": (2, 0, 1)}
  return array.transpose(axes.get(layout, range(array.ndim)))


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
