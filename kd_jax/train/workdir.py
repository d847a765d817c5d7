"""The folder of a run: what was run, by which code, and nobody else's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from kd_jax import trees

# Fields that may change between two starts of the same experiment.
FREE = ("dry_run", "log_every", "checkpoint", "eval")
# What a folder must hold to be worth protecting from another experiment.
RESULTS = ("checkpoints/[0-9]*", "student/*")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
  """Makes the folder and writes config.json and versions.json into it.

  A folder without results, left by a run that failed early, is taken over.

  Raises:
    ValueError: it cannot be written, or holds results of a different
      experiment.
  """
  text = json.dumps(dict(config), indent=2, sort_keys=True, default=list)
  known = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if known.exists() and any(any(workdir.glob(p)) for p in RESULTS):
      _check_same(_read(known), json.loads(text), workdir)
    if jax.process_index() == 0:
      write(known, text)
      write(workdir / "versions.json", json.dumps(versions(), indent=2))
  except OSError as error:
    raise ValueError(
      f"the workdir {workdir} cannot be written ({error.strerror}); give "
      "another one with --workdir"
    ) from error


def _read(path: Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{path} is damaged ({error}), so it cannot be told which experiment "
      "the results beside it belong to; use another --workdir"
    ) from error


def write(path: Path, text: str) -> None:
  """Writes a file that is either whole or not there."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text)
  os.replace(temporary, path)


def versions() -> dict[str, str]:
  """Package versions, git commit and uncommitted changes of the code."""
  found = {name: importlib.metadata.version(name) for name in PACKAGES}
  here = Path(__file__).parent
  found["commit"] = _git(here, "rev-parse", "HEAD")
  found["diff"] = _git(here, "diff", "HEAD")
  return found


def _git(where: Path, *args: str) -> str:
  command = ["git", "-C", str(where), *args]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return done.stdout.strip() if done.returncode == 0 else ""


def _stated(value: Any) -> Any:
  """None for a field left open, as for one that configs did not have yet."""
  return None if value in ("", []) else value


def _check_same(old: Any, new: Any, workdir: Path) -> None:
  old, new = (
    {
      path: value
      for path, value in trees.flatten(tree).items()
      if path.split("/")[0] not in FREE
    }
    for tree in (old, new)
  )
  changed = sorted(
    path.replace("/", ".")
    for path in set(old) | set(new)
    if _stated(old.get(path)) != _stated(new.get(path))
  )
  if changed:
    first = changed[0].replace(".", "/")
    raise ValueError(
      f"{workdir} holds another experiment: {changed} differ (config."
      f"{changed[0]} was {old.get(first)!r}, is {new.get(first)!r}). Use "
      "another --workdir; its weights can be reused with --config.init_from."
    )
