"""The trackers of a run, and what happens when one of them fails.

`metrics.jsonl` has every figure whatever becomes of a service: a service that
cannot be reached at the start stops the run, one that is lost later does not.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from kd_jax import disk, resolve, trees
from kd_jax.report.trackers.base import Run, TrackerLike
from kd_jax.train import signals

FILE = "trackers.json"
"""{tracker: the service's own name of the run}, in its folder."""


def check(names: Sequence[str]) -> tuple[str, ...]:
  """`names`, if all of them can be used here.

  Raises:
    ValueError: no such tracker, one that is named twice, or a package that is
      not installed.
  """
  for name in names:
    resolve.symbol("report.trackers", name, "Tracker")
    if importlib.util.find_spec(name) is None:
      raise ValueError(
        f"trackers={tuple(names)} needs the package {name}, which is not "
        f"installed: pip install {name}, or leave it out of --config.trackers"
      )
  if len(set(names)) < len(names):
    raise ValueError(f"trackers={tuple(names)} names one twice; name each once")
  return tuple(names)


class Trackers:
  """Any number of trackers; none of them stops a run that has begun."""

  def __init__(
    self, names: Sequence[str], folder: Path, *, start_step: int = 0
  ) -> None:
    """Opens them.

    Args:
      names: files of this folder.
      folder: of the run.
      start_step: number of finished updates. A run that starts anew (0) is a
        new one in the service too.

    Raises:
      ValueError: a service does not answer or refuses, or the disk is full.
    """
    self._open: dict[str, TrackerLike] = {}
    if not names:
      return
    known = _read(folder / FILE) if start_step else {}
    title, config = _described(folder)
    for name in names:
      run = Run(title, folder, config, known.get(name, ""))
      self._open[name] = self._started(name, run)
    ids = {name: tracker.id for name, tracker in self._open.items()}
    disk.write(folder / FILE, json.dumps(known | ids).encode())

  def _started(self, name: str, run: Run) -> TrackerLike:
    try:
      return resolve.symbol("report.trackers", name, "Tracker")(run)
    except Exception as error:  # services raise what they like
      self.close(failed=True)
      raise ValueError(
        f"{name} does not take the run ({_line(error)}); see its own "
        "environment variables, or leave it out of --config.trackers"
      ) from error

  def __enter__(self) -> Trackers:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    # A run that was asked to stop will go on.
    self.close(
      failed=kind is not None and not issubclass(kind, signals.Stopped)
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Sends figures to all of them; one that fails gets no more."""
    for name, tracker in list(self._open.items()):
      try:
        tracker.write(step, scalars)
      except Exception as error:  # services raise what they like
        del self._open[name]
        logging.warning(
          "%s fails at step %d (%s) and gets no more figures; metrics.jsonl "
          "has all of them",
          name,
          step,
          _line(error),
        )

  def close(self, *, failed: bool) -> None:
    """Closes all of them."""
    for name, tracker in self._open.items():
      try:
        tracker.close(failed=failed)
      except Exception as error:  # services raise what they like
        logging.warning("%s does not end the run (%s)", name, _line(error))
    self._open = {}


def _described(folder: Path) -> tuple[str, dict[str, str]]:
  """What a run is called, and its config; a trial of a transfer has neither.

  Its folder is <workdir>/trials/<name>.
  """
  places = [folder, *folder.parents[:2]]
  home = next((x for x in places if (x / "config.json").is_file()), folder)
  config = {
    path.replace("/", "."): str(value)
    for path, value in trees.flatten(_read(home / "config.json")).items()
  }
  return folder.relative_to(home.parent).as_posix(), config


def _read(path: Path) -> dict[str, Any]:
  """{} without the file, or if it is damaged: then the run is a new one."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}


def _line(error: Exception) -> str:
  """The first line of an error, or its kind."""
  return next(iter(str(error).splitlines()), "") or type(error).__name__
