"""What a run has left in its folder, as far as runs are compared by it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax import lock, trees
from kd_jax.report import metrics

WORTH = Path("evaluate", "results.json")
"""What `kd-jax evaluate` leaves in the folder of a run."""


@dataclasses.dataclass(frozen=True)
class Record:
  """A run.

  Attributes:
    name: what it is called beside the others.
    config: field, with dots -> value.
    about: label -> value of its summary.
    versions: package -> version, and the commit.
    lines: of metrics.jsonl, at least one.
    worth: what results.json of its evaluation holds; {} without one.
  """

  name: str
  config: Mapping[str, Any]
  about: Mapping[str, Any]
  versions: Mapping[str, Any]
  lines: Sequence[Mapping[str, float]]
  worth: Mapping[str, Any]

  @property
  def steps(self) -> int:
    """Updates that were made."""
    return int(max(line["step"] for line in self.lines))

  @property
  def finished(self) -> bool:
    """Whether these are all that its config asks for."""
    return self.steps >= int(self.config.get("steps", 0))

  @property
  def views(self) -> int:
    """Views of images that the student has seen."""
    return self.steps * int(self.config.get("batch_size", 0))

  @property
  def speed(self) -> float | None:
    """Images per second, median; without the first figure, which compiles."""
    found = [x["images_per_s"] for x in self.lines if "images_per_s" in x]
    return statistics.median(found[1:] or found) if found else None

  @property
  def last(self) -> dict[str, float]:
    """The last value of every metric."""
    found: dict[str, float] = {}
    for line in self.lines:
      found.update(line)
    found.pop("step", None)
    return found


def read(folder: Path, name: str) -> Record:
  """The record of a run.

  Args:
    folder: of the run.
    name: what it is called.

  Raises:
    ValueError: it is no folder of a run, is still written to, has no metrics
      yet, or a file in it is damaged.
  """
  if not folder.is_dir():
    what = "is a file" if folder.exists() else "does not exist"
    raise ValueError(f"{folder} {what}; name the folder of a run")
  if not (folder / "config.json").is_file():
    raise ValueError(
      f"{folder} is not the folder of a run: there is no config.json in it"
    )
  if lock.taken(folder):
    raise ValueError(
      f"{folder} is still written to by a run; compare it when that has ended"
    )
  lines = metrics.read(folder)
  if not lines:
    raise ValueError(
      f"{folder} has no curves: its run wrote no {metrics.FILE}. Compare takes "
      "runs that train a student, once they have logged something"
    )
  config = trees.flatten(json_object(folder / "config.json"))
  return Record(
    name=name,
    config={key.replace("/", "."): value for key, value in config.items()},
    about=json_object(folder / "summary.json"),
    versions=json_object(folder / "versions.json"),
    lines=lines,
    worth=json_object(folder / WORTH),
  )


def json_object(path: Path) -> dict[str, Any]:
  """What a file holds; {} if there is none.

  Raises:
    ValueError: it is damaged.
  """
  if not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path} cannot be read ({error}); repair or delete it"
    ) from error
  if not isinstance(found, dict):
    raise ValueError(f"{path} holds no names and values; repair or delete it")
  return found
