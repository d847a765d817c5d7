"""From a name in a config to the symbol in the file of that name.

There is no registry: `data.name='folder'` is `kd_jax/data/folder.py`, and the
file defines the fixed symbol of its floor (`Source`, `Method`, `Aligner`,
`run`, ...). This is the only file that imports by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any


def names(floor: str, symbol: str) -> list[str]:
  """Names of the modules of `kd_jax.<floor>` that define `symbol`."""
  package = importlib.import_module(f"kd_jax.{floor}")
  found = (info.name for info in pkgutil.iter_modules(package.__path__))
  return sorted(n for n in found if hasattr(_module(floor, n), symbol))


def symbol(floor: str, name: str, symbol: str) -> Any:
  """`kd_jax.<floor>.<name>.<symbol>`.

  Raises:
    ValueError: there is no such module, or it lacks the symbol.
  """
  allowed = names(floor, symbol)
  if name not in allowed:
    raise ValueError(
      f"{floor} has no {name!r}; it has {allowed}. A new one is a file "
      f"kd_jax/{floor}/{name}.py that defines {symbol}."
    )
  return getattr(_module(floor, name), symbol)


def build(floor: str, symbol_name: str, config: Mapping[str, Any]) -> Any:
  """Builds `symbol_name(**config)`; config['name'] says which file.

  Raises:
    ValueError: unknown name, or a field that the dataclass does not have.
  """
  fields = dict(config)
  name = fields.pop("name")
  cls = symbol(floor, name, symbol_name)
  allowed = sorted(f.name for f in dataclasses.fields(cls) if f.init)
  unknown = sorted(set(fields) - set(allowed))
  if unknown:
    raise ValueError(
      f"{floor} {name!r} has no field {unknown}; it has {allowed}"
    )
  return cls(**fields)


def _module(floor: str, name: str) -> Any:
  return importlib.import_module(f"kd_jax.{floor}.{name}")
