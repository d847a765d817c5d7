"""Several teachers as one: what is loaded, learnt and seen.

One teacher is the case of one entry of `config.teachers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from kd_jax import resolve
from kd_jax.build.teachers import entries
from kd_jax.build.teachers.entries import Entry
from kd_jax.data.several import sized
from kd_jax.interfaces import Method
from kd_jax.methods.multi import WHOLE, part_of
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher import several
from kd_jax.train.teacher.teaching import Teaching

Load = Callable[[Mapping[str, Any]], Teaching]
"""Fields of `config.teacher` -> the teacher."""


def teaching(config: Mapping[str, Any], load: Load) -> Teaching:
  """The teacher of a run, or all of them as one.

  Args:
    config: of the run, as a dict.
    load: how one is loaded.

  Raises:
    ValueError: what is said of one of them, with its name.
  """
  found = entries.of(config)
  if not found:
    return load(config["teacher"])
  usual = config["preprocess"]
  shown = {
    name: changes.get("image_size", usual["image_size"])
    for name, changes in entries.changes_of(found, usual).items()
  }
  parts = {name: _loaded(name, entry, load) for name, entry in found.items()}
  return several.together(parts, shown)


def _loaded(name: str, entry: Entry, load: Load) -> Teaching:
  fields = {
    field.name: getattr(entry, field.name)
    for field in dataclasses.fields(entry)
    if field.name not in ("preprocess", "method", "weight")
  }
  try:
    return load(fields)
  except ValueError as error:
    message = str(error).replace("config.teacher.", f"config.teachers.{name}.")
    raise ValueError(f"teacher {name!r}: {message}") from error


def method(config: Mapping[str, Any]) -> Method:
  """What is learnt from each, and from all of them together.

  A term 'NAME/term' is of the method of that teacher; one without a name is of
  `config.method`, which hears all of them.

  Args:
    config: of the run, as a dict; without several teachers the method is that
      of the one.

  Raises:
    ValueError: a teacher without a loss term, or a term of no teacher.
  """
  found, common = entries.of(config), config["method"]
  losses = sorted(config["losses"].items())
  terms = tuple(term for term, weight in losses if weight)
  if not found:
    return resolve.build("methods", "Method", {**common, "terms": terms})
  names = {part_of(term) for term in terms}
  whole = WHOLE in names
  strangers = sorted(names - {*found, WHOLE})
  if strangers:
    raise ValueError(
      f"config.losses has terms of {strangers}; the teachers are "
      f"{sorted(found)}. Name terms 'teacher/term'."
    )
  idle = sorted(set(found) - names)
  if idle and not whole:
    raise ValueError(
      f"the teachers {idle} have no loss term with a weight; set "
      f"--config.losses to one named '{idle[0]}/term', or leave them out"
    )
  parts = {name: _fields(common, entry) for name, entry in found.items()}
  fields = {
    "terms": terms,
    "parts": {**parts, WHOLE: common} if whole else parts,
    "apart": True,
  }
  return resolve.build("methods", "Method", {"name": "multi", **fields})


def _fields(common: Mapping[str, Any], entry: Entry) -> Mapping[str, Any]:
  """Fields of the method of one teacher."""
  other = entry.method.get("name", common["name"]) != common["name"]
  return entry.method if other else {**common, **entry.method}


def weights(config: Mapping[str, Any]) -> dict[str, float]:
  """{loss term: weight}, with those of the teachers.

  Args:
    config: of the run, as a dict.
  """
  found = entries.of(config)
  factor = {name: entry.weight for name, entry in found.items()}
  return {
    term: weight * factor.get(part_of(term), 1.0)
    for term, weight in config["losses"].items()
  }


def inputs(found: Inputs, config: Mapping[str, Any]) -> Inputs:
  """The training images, as the student and all teachers see them.

  Args:
    found: as the student does.
    config: of the run, as a dict.

  Raises:
    ValueError: a field that would show another crop.
  """
  changes = entries.changes_of(entries.of(config), config["preprocess"])
  if not changes:
    return found
  also = tuple((name, tuple(sorted(c.items()))) for name, c in changes.items())
  views = sized.Sized(**vars(found.views), also=also)
  return dataclasses.replace(found, views=views)
