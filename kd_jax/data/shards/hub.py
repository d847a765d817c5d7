"""Files as the Hugging Face hub and `datasets` lay them out."""

from __future__ import annotations

import collections
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kd_jax.data.shards import files, names
from kd_jax.data.shards.files import File

ENDINGS = (".parquet", ".arrow")
_NUMBERED = re.compile(r"(.+?)-\d+-of-\d+(?:-[0-9a-f]+)?")


def find(path: str) -> Mapping[str, tuple[File, ...]]:
  """The files of every split.

  Args:
    path: a folder that `save_to_disk` wrote, of one split or of several; or
      parquet or arrow files, a folder of them, or a pattern, as in
      `names.find`; several with :: between them.

  Returns:
    {split: files in order}. Names are those that `save_to_disk` stored; else
    train-00000-of-00009.parquet is of 'train', and so is train/0000.parquet.

  Raises:
    ValueError: nothing there, files are missing, or of both kinds.
  """
  saved = _saved(path)
  if saved:
    return saved
  found = names.find(path.split("::"), "path", ENDINGS)
  kinds = {os.path.splitext(file.path)[1] for file in found}
  if len(kinds) > 1 or not kinds <= set(ENDINGS):
    raise ValueError(
      f"path={path!r} names files of the kinds {sorted(kinds)}; name files of "
      f"one kind, {' or '.join(ENDINGS)}"
    )
  splits = collections.defaultdict(list)
  for file in found:
    splits[_split(file)].append(file)
  return {name: tuple(of) for name, of in splits.items()}


def _split(file: File) -> str:
  stem = os.path.splitext(file.name)[0]
  numbered = _NUMBERED.fullmatch(stem)
  if numbered:
    stem = numbered[1].rpartition("-")[2]  # cifar10-train-00000-of-00001
  elif stem.isdigit():
    stem = file.path.split("/")[-2] if "/" in file.path else "all"
  return re.sub(r"\W", "_", stem)


def _saved(path: str) -> Mapping[str, tuple[File, ...]]:
  """The files of every split of a folder that `save_to_disk` wrote."""
  folder = path if files.is_remote(path) else os.path.expanduser(path)
  folder = folder.rstrip("/")
  if folder.endswith(ENDINGS):
    return {}
  several = _json(f"{folder}/dataset_dict.json", "splits")
  if several is None:
    state = _json(f"{folder}/state.json", "_data_files")
    if state is None:
      return {}
    return {state.get("_split") or "all": _of_state(folder, state)}
  found = {}
  for split in several["splits"]:
    state = _json(f"{folder}/{split}/state.json", "_data_files")
    if state is None:
      raise ValueError(
        f"path={path!r}: its split {split!r} has no state.json; save it again"
      )
    found[split] = _of_state(f"{folder}/{split}", state)
  return found


def _of_state(folder: str, state: Mapping[str, Any]) -> tuple[File, ...]:
  if state.get("_indices_data_files") or state.get("_indices_files"):
    raise ValueError(
      f"{folder}: saved with an order beside the files, as old versions of "
      "datasets did; load and save it again (flatten_indices)"
    )
  found = [f"{folder}/{file['filename']}" for file in state["_data_files"]]
  return tuple(names.find(_escaped(found), "path", ENDINGS))


def _escaped(paths: Sequence[str]) -> list[str]:
  for path in paths:
    if set(path) & set("{}*?["):
      raise ValueError(
        f"{path!r}: a saved data set may not lie in a folder with braces, "
        "brackets, * or ? in its name; rename it"
      )
  return list(paths)


def _json(path: str, key: str) -> dict[str, Any] | None:
  """What a small file holds; None where there is none, or it lacks `key`."""
  try:
    if files.is_remote(path):
      system = files.filesystem(path)
      data = files.retried(lambda: system.cat_file(path))
    else:
      with open(path, "rb") as file:
        data = file.read()
  except OSError as error:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
      return None
    raise ValueError(
      f"{path}: cannot be read: {error.strerror or error}"
    ) from error
  try:
    found = json.loads(data)
  except ValueError as error:
    raise ValueError(f"{path}: damaged, no JSON; save it again") from error
  return found if isinstance(found, dict) and key in found else None
