"""Reads a config file and the overrides of the command line.

A config file defines `get_config(variant='')` and returns a locked
`ml_collections.ConfigDict`; `path.py:variant` passes the variant. Overrides
keep the type of the field they replace. `configs/NAME.py` is a file of this
folder, or else the recipe of that name that is installed with kd_jax. Some
sub-configs are open, because their fields belong to what they name: `overrides`
(arguments of `create_model`), `directions` (of a bank's maps, by tap), and the
parts (`PARTS`), where a new `name` starts from that part's own defaults.
Another student or teacher keeps none of the former one's `overrides` but the
number of classes.
"""

from __future__ import annotations

import ast
import runpy
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax import resolve

_EXAMPLES = {
  bool: "true or false",
  int: "a whole number",
  float: "a number",
  tuple: "a tuple such as \"('a','b')\" or \"(1,2)\"",
  list: 'a list such as "[1,2]"',
}
PARTS = (
  "data",
  "align",
  "method",
  "train",
  "test",
  "codec",
  "head",
  "aux",
  "detector",
  "balance",
)
OPEN = ("overrides", "directions")
NETWORKS = ("student", "teacher")


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """The config of 'path/to/file.py[:variant]' after 'a.b=value' overrides.

  Raises:
    ValueError: no such file or variant, a field that does not exist, or a
      value of the wrong type.
  """
  path, _, variant = spec.partition(":")
  config = _read(Path(path), variant)
  for override in overrides:
    field, equals, text = override.partition("=")
    if not equals:
      raise ValueError(
        f"--config.{override} has no value; write --config.{field}=value"
      )
    _assign(config, field, text)
  if config.get("topology"):
    _check_topology(config.topology, config.task, config.dry_run)
  return config


def _check_topology(name: str, task: str, dry_run: bool) -> None:
  """Only the dry run of a training looks at it; others would ignore it."""
  if task != "pretrain" or not dry_run:
    raise ValueError(
      f"topology={name} is for a dry run of the task 'pretrain', and this is "
      f"task={task!r} with dry_run={dry_run}; set --config.dry_run=True, or "
      "leave --config.topology out"
    )


def recipes() -> Path:
  """The folder of the recipes: inside of a wheel, beside a checkout's code."""
  here = Path(__file__).resolve().parent
  inside = here / "configs"
  return inside if inside.is_dir() else here.parent / "configs"


def _found(path: Path) -> Path:
  """`path`, or for a 'configs/NAME.py' that is absent the recipe NAME."""
  installed = path.parent == Path("configs") and not path.exists()
  own = recipes() / path.name
  return own if installed and own.is_file() else path


def _read(path: Path, variant: str) -> ConfigDict:
  path = _found(path)
  if not path.is_file():
    known = recipes() if path.parent == Path("configs") else path.parent
    names = {p.name for p in known.glob("[a-z]*.py")}
    names -= {p.name for p in known.glob("common*.py")}
    beside = {(path.parent / name).as_posix() for name in names}
    raise ValueError(
      f"there is no config {path}; {path.parent} holds "
      f"{resolve.near(path.as_posix(), beside)}"
    )
  # Configs import their siblings as `configs.common*`, from wherever they are.
  root = str(path.resolve().parent.parent)
  if root not in sys.path:
    sys.path.append(root)
  try:
    symbols = runpy.run_path(str(path))
    if "get_config" not in symbols:
      raise ValueError("it does not define get_config(variant='')")
    config = symbols["get_config"](variant)
    if "task" not in config:
      raise ValueError("it names no task")
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  except Exception as error:  # A config is code: anything may happen.
    raise ValueError(
      f"{path} fails{_line(error, path)}: {type(error).__name__}: {error}"
    ) from error
  return config


def _line(error: Exception, path: Path) -> str:
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  return f" (line {lines[-1]})" if lines else ""


def _assign(config: ConfigDict, field: str, text: str) -> None:
  *parents, leaf = field.split(".")
  node, path = config, "config"
  for name in parents:
    node, path = _child(node, name, path), f"{path}.{name}"
    if not isinstance(node, ConfigDict):
      raise ValueError(f"{path} is a value, it has no field {leaf!r}")
  kind = path.rpartition(".")[2]
  if kind in PARTS and leaf == "name" and text != node.get("name"):
    with node.unlocked():
      for key in list(node):
        del node[key]
      node.name = text
  elif kind in NETWORKS and leaf == "name" and text != node.get("name"):
    kept = {k: v for k, v in node.overrides.items() if k == "num_classes"}
    with node.unlocked():
      node.name, node.overrides = text, ConfigDict(kept)
  elif kind in (*PARTS, *OPEN) and leaf not in node:
    with node.unlocked():
      node[leaf] = _literal(text)
  else:
    old = _child(node, leaf, path)
    node[leaf] = _parse(text, old, f"{path}.{leaf}")


def _child(node: ConfigDict, name: str, path: str) -> Any:
  if name not in node:
    raise ValueError(
      f"there is no field {path}.{name}; the fields of {path} are "
      f"{resolve.near(name, node)}"
    )
  return node[name]


def _parse(text: str, old: object, path: str) -> object:
  """`text` as the type of `old`."""
  kind = type(old)
  if isinstance(old, ConfigDict):
    raise ValueError(f"{path} holds the fields {sorted(old)}; set one of them")
  if kind is str:
    return text
  value = _literal(text)
  if kind is bool and text.lower() in ("true", "false", "1", "0"):
    return text.lower() in ("true", "1")
  if kind is float and type(value) is int:
    return float(value)
  if kind in (tuple, list) and isinstance(value, tuple | list):
    return kind(value)
  if kind is bool or type(value) is not kind:
    raise ValueError(
      f"{path}={text!r} is no {kind.__name__}; its value now is {old!r}. "
      f"Write {_EXAMPLES.get(kind, 'a ' + kind.__name__)}."
    )
  return value


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
