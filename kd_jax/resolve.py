"""From a name in a config to the symbol in the file of that name.

There is no registry: `data.name='folder'` is `kd_jax/data/folder.py`, and the
file defines the fixed symbol of its floor (`Source`, `Method`, `Aligner`,
`run`, ...). This is the only file that imports by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
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
  """Names of the modules of `kd_jax.<floor>` that define `symbol`."""
  return [n for n in _files(floor) if hasattr(_module(floor, n), symbol)]


def symbol(floor: str, name: str, symbol: str) -> Any:
  """`kd_jax.<floor>.<name>.<symbol>`.

  Raises:
    ValueError: there is no such module, or it lacks the symbol.
  """
  if name not in _files(floor) or not hasattr(_module(floor, name), symbol):
    allowed = names(floor, symbol)
    raise ValueError(
      f"{floor} has no {name!r}; it has {near(name, allowed)}. A new one is a "
      f"file kd_jax/{floor}/{name}.py that defines {symbol}."
    )
  return getattr(_module(floor, name), symbol)


def build(floor: str, symbol_name: str, config: Mapping[str, Any]) -> Any:
  """Builds `symbol_name(**config)`; config['name'] says which file.

  Raises:
    ValueError: unknown name, or a field that is unknown, missing or of the
      wrong type.
  """
  fields = dict(config)
  name = fields.pop("name", "")
  cls = symbol(floor, name, symbol_name)
  return construct(cls, fields, f"{floor} {name!r}")


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


@functools.cache
def _files(floor: str) -> tuple[str, ...]:
  """Names of the modules of `kd_jax.<floor>`; listing a folder takes long."""
  package = importlib.import_module(f"kd_jax.{floor}")
  return tuple(
    sorted(info.name for info in pkgutil.iter_modules(package.__path__))
  )


def _module(floor: str, name: str) -> Any:
  return importlib.import_module(f"kd_jax.{floor}.{name}")
