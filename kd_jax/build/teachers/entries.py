"""The entries of `config.teachers`: {name: fields}.

Each has a source, weights, a view and a method of its own. `config.teacher` is
read where there is none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from kd_jax import resolve
from kd_jax.build import images
from kd_jax.data.several import sized

_NAME = re.compile("[a-z][a-z0-9_]*")
_TAKEN = ("all", "artifact", "key", "params", "student")
"""Names that variables and figures of a run have already."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One of `config.teachers`; see `config.teacher` for the fields of both.

  Attributes:
    source: where its taps come from.
    name: architecture.
    weights: a file, a folder, a hub name, or the place of a bank.
    param_dtype: of its kernels.
    fsdp: whether its weights are split over the devices.
    overrides: arguments of the architecture.
    preprocess: fields of `config.preprocess` in which its view differs.
    method: fields of `config.method` that differ; all of them where it names
      another method.
    weight: factor of the weights of its loss terms.
  """

  source: str = "online"
  name: str = ""
  weights: str = ""
  param_dtype: str = "float32"
  fsdp: bool = False
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  method: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  weight: float = 1.0


def of(config: Mapping[str, Any]) -> dict[str, Entry]:
  """{name: teacher} of `config.teachers`, by name; {} without any.

  Args:
    config: of the run, as a dict.

  Raises:
    ValueError: a name, a field or a weight that is not allowed.
  """
  found = config.get("teachers") or {}  # older configs have none
  wrong = [name for name in found if not _NAME.fullmatch(str(name))]
  if wrong:
    raise ValueError(
      f"config.teachers has the names {wrong}; a name begins with a small "
      "letter, and small letters, digits and '_' follow"
    )
  taken = sorted({*found} & {*_TAKEN})
  if taken:
    raise ValueError(
      f"config.teachers has the names {taken}, which collide with others of a "
      f"run; choose any but {list(_TAKEN)}"
    )
  result: dict[str, Entry] = {}
  for name, fields in sorted(found.items()):
    entry = resolve.construct(Entry, fields, f"teachers.{name}")
    if entry.weight <= 0:
      raise ValueError(
        f"teachers.{name}.weight is {entry.weight}; it must be positive. "
        "Leave a teacher out that has no weight."
      )
    result[name] = entry
  return result


def changes_of(
  found: Mapping[str, Entry], usual: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """{name: fields of its view that differ from the student's}.

  Args:
    found: the teachers.
    usual: `config.preprocess`.

  Raises:
    ValueError: a field that would show another crop, or a value that is not
      allowed.
  """
  result: dict[str, dict[str, Any]] = {}
  for name, entry in found.items():
    wrong = sorted(set(entry.preprocess) - set(sized.FIELDS))
    if wrong:
      raise ValueError(
        f"teachers.{name}.preprocess has the fields {wrong}; a teacher sees "
        f"the student's crop and can differ in {list(sized.FIELDS)}"
      )
    changes = {k: v for k, v in entry.preprocess.items() if v != usual[k]}
    _check_view(name, {**usual, "canvas": 0, **changes})
    if changes:
      result[name] = changes
  return result


def _check_view(name: str, fields: Mapping[str, Any]) -> None:
  """Whether its values are allowed.

  Raises:
    ValueError: one is not, with the teacher's name.
  """
  try:
    images.preprocess(fields)
  except ValueError as error:
    raise ValueError(f"the view of the teacher {name!r}: {error}") from error
