"""The networks that there are."""

from __future__ import annotations

import fnmatch

from ml_collections import ConfigDict

from kd_jax import models
from kd_jax.convert import licences
from kd_jax.door import teachers
from kd_jax.door.names import near
from kd_jax.tasks import models as table


def show(pattern: str = "") -> None:
  """Prints the names of all networks, or a table of some.

  Args:
    pattern: with '*' and '?' as in a shell, or a part of a name; '': the names
      of all, since measuring them takes minutes.

  Raises:
    ValueError: no name matches.
  """
  if not pattern:
    print("\n".join(models.list_models()))
    print("\nshort names of teachers:")
    width = max(map(len, teachers.ALIASES))
    for short, full in teachers.ALIASES.items():
      licence = licences.restricted(full)
      note = f"  (licence: {licence})" if licence else ""
      print(f"{short:<{width}}  {full}{note}")
    return
  wild = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
  known = models.list_models()
  if not fnmatch.filter(known, wild):
    raise ValueError(
      f"no network has {pattern!r} in its name; {near(pattern, known)}"
    )
  fields = {"task": "models", "match": wild, "tags": "", "output": ""}
  table.run(ConfigDict(fields), "")
