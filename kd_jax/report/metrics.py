"""The numbers that a run leaves behind.

`Writer` keeps each of them twice: one JSON line per call in `metrics.jsonl`
(what `report` and scripts read) and TensorBoard event files. Others may get
them as well, see `report.trackers`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kd_jax import disk
from kd_jax.buckets import spool
from kd_jax.report import event_file

FILE = "metrics.jsonl"


class Writer:
  """Appends scalars to `workdir/metrics.jsonl` and to event files.

  Attributes:
    active: whether anything is written (true on process 0 only).
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    start_step: int = 0,
    active: bool = True,
    others: Callable[[int, Mapping[str, float]], None] | None = None,
  ):
    """Opens the files; drops what an interrupted run wrote too much.

    Args:
      workdir: folder of the run, made if absent.
      start_step: number of finished updates. Lines of later steps are dropped
        (all lines, if it is 0), because they are going to be written again.
      active: false on all processes but the first; then nothing is written.
      others: also gets the figures of every step.

    Raises:
      ValueError: a line of an existing file, but the last, is damaged, or the
        disk is full.
    """
    self.active, self._others = active, others
    if not active:
      return
    self._folder = pathlib.Path(workdir)
    path = self._folder / FILE
    with disk.writing("metrics", self._folder), contextlib.ExitStack() as undo:
      self._folder.mkdir(parents=True, exist_ok=True)
      _truncate(path, start_step)
      self._lines = undo.enter_context(path.open("a", encoding="utf-8"))
      self._events = event_file.EventFile(self._folder, start_step)
      undo.pop_all()

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends {'step': step, **values}.

    Args:
      step: number of finished updates.
      values: name -> scalar; NaN and infinities are kept.

    Raises:
      ValueError: a value is no scalar, or is called 'step', or the disk is
        full.
    """
    if not self.active:
      return
    if "step" in values:
      raise ValueError(
        "a metric cannot be called 'step', the line has one; rename it"
      )
    scalars = {name: _scalar(name, value) for name, value in values.items()}
    line = {"step": int(step)} | {k: _encode(v) for k, v in scalars.items()}
    text = json.dumps(line, allow_nan=False) + "\n"
    with disk.writing(f"metrics of step {step}", self._folder, len(text)):
      self._lines.write(text)
      self._lines.flush()
      self._events.write(int(step), scalars)
    if self._others is not None:
      self._others(int(step), scalars)

  def close(self) -> None:
    """Flushes and closes the files.

    Raises:
      ValueError: the disk is full.
    """
    if not self.active:
      return
    with disk.writing("metrics", self._folder), contextlib.ExitStack() as files:
      files.callback(self._lines.close)
      files.callback(self._events.close)

  def __enter__(self) -> Writer:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    # A disk that is full when a run ends is not what ended it.
    with contextlib.suppress(*([ValueError] if kind else [])):
      self.close()


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The lines of `workdir/metrics.jsonl`; [] if nothing was written yet.

  A last line cut short by a killed process is left out.

  Returns:
    [{'step': int, name: float, ...}, ...] in the order of writing.

  Raises:
    ValueError: a line before the last is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return []
  lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
  # What follows the last newline is either nothing or half a line.
  return [_decode(path, n, text) for n, text in enumerate(lines[:-1], 1)]


def _scalar(name: str, value: Any) -> float:
  array = np.asarray(value)
  if array.dtype.kind not in "bfiuV":
    raise ValueError(
      f"metric {name!r} is {value!r}, not a number; leave it out"
    )
  if array.size != 1:
    raise ValueError(
      f"metric {name!r} has shape {array.shape}; a metric is one number: "
      "reduce it (mean, sum) before writing"
    )
  return float(array.reshape(()))


def _encode(value: float) -> float | str:
  return value if math.isfinite(value) else str(value)


def _decode(path: pathlib.Path, number: int, text: str) -> dict[str, Any]:
  try:
    line = json.loads(text)
    return {"step": line.pop("step")} | {k: float(v) for k, v in line.items()}
  except (ValueError, KeyError, AttributeError, TypeError) as error:
    raise ValueError(
      f"{spool.address(path)} line {number} is no metrics line: "
      f"{text[:60]!r}. Repair or delete that line; only an unfinished last "
      "line is dropped by itself."
    ) from error


def _truncate(path: pathlib.Path, start_step: int) -> None:
  if not path.exists():
    return
  lines = read(path.parent) if start_step else []
  text = "".join(
    json.dumps({name: _encode(value) for name, value in line.items()}) + "\n"
    for line in lines
    if line["step"] <= start_step
  )
  disk.write(path, text.encode())
