"""What the layouts of detectors share: names, checks, and what is added."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.convert import rules, weights
from kd_jax.models.backbone import Backbone

StateDict = dict[str, np.ndarray]

LEFT_OUT = ""
"""As the name of a tensor: detectors do not read it."""


@dataclasses.dataclass(frozen=True)
class Family:
  """How a library calls the tensors of a family, if it has them all.

  Attributes:
    names: (timm's name, theirs) of layers or tensors; the first match counts.
      Placeholders such as '{b}' stand for integers, and '{b:-1}' in their name
      for one less. `LEFT_OUT` drops a tensor.
    fixed: fields of the model that it must have for the other side to compute
      the same.
    finish: what else has to happen to the renamed tensors.
    build: text that builds such a network there, given it and its name here.
  """

  names: tuple[tuple[str, str], ...]
  fixed: Mapping[str, Any]
  build: Callable[[Backbone, str], str]
  finish: Callable[[StateDict], StateDict] = dict


@dataclasses.dataclass(frozen=True)
class Layout:
  """The names and the file of a library.

  Attributes:
    title: what people call it.
    families: of the models that it has.
    forms: (pattern, replacement) pairs that place a backbone in a detector,
      per form; the first form is the usual one.
    write: writes the tensors to a folder; also told the form.
    about: text that says how to load the file, given the text of
      `Family.build`, the model and the form.
  """

  title: str
  families: Mapping[str, Family]
  forms: Mapping[str, tuple[tuple[str, str], ...]]
  write: Callable[[StateDict, Path, str], None]
  about: Callable[[str, Backbone, str], str]


class _Number(int):
  """An integer whose format is what to add to it: f'{three:-1}' is '2'."""

  def __format__(self, spec: str) -> str:
    return str(self + int(spec or 0))


def renamed(
  layout: Layout, model: Backbone, variables: Mapping[str, Any], form: str
) -> StateDict:
  """The tensors of a student under the names of a library.

  Args:
    layout: of the library.
    model: the student; its classifier is left out.
    variables: its parameters and statistics.
    form: one of `layout.forms`; '' is the first.

  Returns:
    {name: float32 array in PyTorch's layout, or integer buffer}, for RGB. The
    counters of BatchNorm are left out: frozen ones have none, and PyTorch fills
    in the others.

  Raises:
    ValueError: the library has no such form, or no such student.
  """
  family = family_of(layout, model)
  places = layout.forms[form_of(layout, form)]
  tensors = {}
  for name, value in weights.to_timm_rgb(model, variables).items():
    skipped = name.endswith(weights.COUNTER)
    if skipped or name in rules.head_names(model):
      continue
    if new := _translate(layout, family, name):
      tensors[new] = value
  tensors = family.finish(tensors)
  return {_placed(name, places): value for name, value in tensors.items()}


def family_of(layout: Layout, model: Backbone) -> Family:
  """What a library has of the family of a student.

  Raises:
    ValueError: nothing, or not with the fields of this student.
  """
  name = rules.family(model)
  family = layout.families.get(name)
  if family is None:
    raise ValueError(
      f"{layout.title} has no names for the family {name!r}; it has some for "
      f"{', '.join(sorted(layout.families))}. Leave --config.format empty for "
      "timm's names."
    )
  for field, wanted in family.fixed.items():
    found = getattr(model, field)
    if found != wanted:
      raise ValueError(
        f"{layout.title} has no {name} with {field}={found!r}, only with "
        f"{wanted!r}. Leave --config.format empty for timm's names."
      )
  return family


def form_of(layout: Layout, form: str) -> str:
  """A form of a layout; '' is the first.

  Raises:
    ValueError: there is no such form.
  """
  known = list(layout.forms)
  if form and form not in known:
    raise ValueError(
      f"{layout.title} has no form {form!r}; --config.form is one of {known}"
    )
  return form or known[0]


def _translate(layout: Layout, family: Family, name: str) -> str:
  for theirs, ours in family.names:
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(theirs))
    match = re.fullmatch(rf"{pattern}(?P<rest>\.[a-z_]+)?", name)
    if not match:
      continue
    numbers = match.groupdict()
    rest = numbers.pop("rest") or ""
    new = ours.format(**{k: _Number(v) for k, v in numbers.items()})
    return new + rest if new else LEFT_OUT
  raise ValueError(
    f"{layout.title} has no name for the tensor {name!r} of this student. "
    "Leave --config.format empty for timm's names."
  )


def _placed(name: str, places: tuple[tuple[str, str], ...]) -> str:
  for pattern, replacement in places:
    new, count = re.subn(rf"^{pattern}", replacement, name)
    if count:
      return new
  return name
