"""From a name in a config to the symbol in the file of that name.

There is no registry: `data.name='folder'` is `data/sources/folder.py`, and the
file defines the fixed symbol of its floor (`Source`, `Method`, `Aligner`,
`run`, ...). A floor may have packages, as `models` has one per family; a name
is that of a file all the same. This is the only file that imports by name.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

# What an annotation allows; others are not checked.
_KINDS = {
  "bool": bool,
  "int": int,
  "float": (int, float),
  "str": str,
  "tuple": (tuple, list),
  "Mapping": Mapping,
}


def names(floor: str, symbol: str) -> list[str]:
  """Names of the files of `kd_jax.<floor>` that define `symbol`."""
  return [name for name in _files(floor) if _find(floor, name, symbol)]


def symbol(floor: str, name: str, symbol: str) -> Any:
  """What the file `name` of `kd_jax.<floor>` defines as `symbol`.

  Raises:
    ValueError: there is no such file, or it lacks the symbol.
  """
  module = _find(floor, name, symbol)
  if module is None:
    path, part = floor.split("."), _part(floor)
    raise ValueError(
      f"{part} has no {name!r}; it has {near(name, names(floor, symbol))}. A "
      f"new one is a file {'/'.join(('kd_jax', *path, name))}.py that defines "
      f"{symbol}."
    )
  return getattr(module, symbol)


def optional(floor: str, name: str, symbol: str) -> Any:
  """As `symbol`, or None if there is no such file or symbol."""
  module = _find(floor, name, symbol)
  return None if module is None else getattr(module, symbol)


def build(floor: str, symbol_name: str, config: Mapping[str, Any]) -> Any:
  """Builds `symbol_name(**config)`; config['name'] says which file.

  Raises:
    ValueError: unknown name, or a field that is unknown, missing or of the
      wrong type.
  """
  fields = dict(config)
  name = fields.pop("name", "")
  cls = symbol(floor, name, symbol_name)
  return construct(cls, fields, f"{_part(floor)} {name!r}")


def _part(floor: str) -> str:
  """What configs call the choice of a file of a floor."""
  parts = floor.split(".")
  named = {
    "heads": "head",
    "forms": "detector",
    "trackers": "trackers",
    "balance": "balance",
  }
  return named.get(parts[-1], parts[0])


def construct(cls: Any, fields: Mapping[str, Any], what: str) -> Any:
  """`cls(**fields)` of a dataclass; errors call it `what`.

  Raises:
    ValueError: a field that is unknown, missing or of the wrong type.
  """
  allowed = {f.name: f for f in dataclasses.fields(cls) if f.init}
  for name in fields:
    if name not in allowed:
      raise ValueError(
        f"{what} has no field {name!r}; it has {near(name, allowed)}"
      )
  missing = [
    name
    for name, field in allowed.items()
    if name not in fields
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  ]
  if missing:
    raise ValueError(
      f"{what} needs the fields {missing}; set them in the config, or on the "
      "command line after its name"
    )
  check_types(cls, fields, what)
  return cls(**fields)


def check_types(cls: Any, fields: Mapping[str, Any], what: str) -> None:
  """Compares values with the annotations of a dataclass.

  Raises:
    ValueError: a value of the wrong type.
  """
  kinds = {
    f.name: str(f.type).partition("[")[0] for f in dataclasses.fields(cls)
  }
  for name, value in fields.items():
    kind = kinds[name]
    fits = isinstance(value, _KINDS.get(kind, object))
    if not fits or (isinstance(value, bool) and kind in ("int", "float")):
      raise ValueError(
        f"{what}: {name} is {value!r} ({type(value).__name__}); it must be "
        f"of the type {kind}"
      )


def near(word: str, allowed: Iterable[str]) -> list[str]:
  """All of `allowed`, first what looks like `word`."""
  allowed = sorted(allowed)
  close = difflib.get_close_matches(str(word), allowed)
  return [*close, *(name for name in allowed if name not in close)]


def _find(floor: str, name: str, symbol: str) -> ModuleType | None:
  """The module of that name which defines `symbol`."""
  modules = map(importlib.import_module, _files(floor).get(name, ()))
  return next((m for m in modules if hasattr(m, symbol)), None)


@functools.cache
def _files(floor: str) -> Mapping[str, Sequence[str]]:
  """{file name: modules} of a floor and its packages; listing takes long."""
  package = importlib.import_module(f"kd_jax.{floor}")
  found = collections.defaultdict(list)
  for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not info.ispkg:
      found[info.name.rpartition(".")[2]].append(info.name)
  return dict(sorted(found.items()))
