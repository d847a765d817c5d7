"""The config of a run as a Python file, from which a person goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax import config as config_lib
from kd_jax import workdir

NAME = "config.py"

_TEXT = '''r"""What 'kd-jax distill' chose; edit a copy to go further.

Command: python -m kd_jax.main --config {file} --workdir {folder}
The same command goes on with this run. Every field can be changed with
--config.FIELD=VALUE, in another --workdir; kd_jax/door/fields.py explains them.

{lines}
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
  """The run as it was started."""
  if variant:
    raise ValueError(f"this config has no variant {{variant!r}}")
  config = ConfigDict(
    {fields}
  )
  config.lock()
  return config
'''


def keep(fields: Mapping[str, Any], folder: Path, lines: Sequence[str]) -> Path:
  """Writes the config of a run that starts, or goes on.

  Args:
    fields: of the config.
    folder: of the run.
    lines: what a person should know about them.

  Returns:
    The file.

  Raises:
    ValueError: the folder holds another run, or cannot be written.
  """
  path = folder / NAME
  if _has_results(folder) and not _same(path, fields):
    goes_on = f"python -m kd_jax.main --config {path} --workdir {folder}"
    known = f"; '{goes_on}' goes on with it" if path.is_file() else ""
    raise ValueError(
      f"{folder} holds a run with other settings, images or another machine"
      f"{known}. Choose another folder with out"
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write(path, text(fields, folder, lines))
  except OSError as error:
    raise ValueError(
      f"{folder} cannot be written ({error.strerror}); choose another folder "
      "with out"
    ) from error
  return path


def text(fields: Mapping[str, Any], folder: Path, lines: Sequence[str]) -> str:
  """The file that `keep` writes."""
  return _TEXT.format(
    file=folder / NAME,
    folder=folder,
    lines="\n".join(f"- {line}".replace('"', "'") for line in lines),
    fields=_literal(fields, 4),
  )


def _literal(value: Any, indent: int) -> str:
  """A value as Python code, nested mappings one field per line."""
  if not isinstance(value, Mapping) or not value:
    return repr(value)
  inner = " " * (indent + 2)
  rows = [
    f"{inner}{key!r}: {_literal(item, indent + 2)},"
    for key, item in value.items()
  ]
  return "\n".join(["{", *rows, " " * indent + "}"])


def _has_results(folder: Path) -> bool:
  return any(any(folder.glob(each)) for each in workdir.RESULTS)


def _same(path: Path, fields: Mapping[str, Any]) -> bool:
  """Whether a file says the same; what it says besides does not matter."""
  return path.is_file() and config_lib.load(str(path)).to_dict() == fields
