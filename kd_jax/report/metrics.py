"""What a run leaves behind and what a person sees while it runs.

`Writer` keeps every number twice: one JSON line per call in `metrics.jsonl`
(what `report` and scripts read) and TensorBoard event files. `Progress` is the
live line, `summary` and `tap_table` are the text printed before step 0.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import jax
import numpy as np
import tqdm

from kd_jax import disk, types
from kd_jax.report import event_file

FILE = "metrics.jsonl"

_TAP_ORDER = (*types.STAGES[:-1], "feature", "pooled", "logits")


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
  ):
    """Opens the files; drops what an interrupted run wrote too much.

    Args:
      workdir: folder of the run, made if absent.
      start_step: number of finished updates. Lines of later steps are dropped
        (all lines, if it is 0), because they are going to be written again.
      active: false on all processes but the first; then nothing is written.

    Raises:
      ValueError: a line of an existing file, but the last, is damaged, or the
        disk is full.
    """
    self.active = active
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


class Progress:
  """The live line: step, loss terms, images/s and time left.

  On a terminal a tqdm bar; elsewhere (a log file) plain lines, at most one
  every `every_s` seconds besides the first and the last.
  """

  def __init__(
    self,
    total_steps: int,
    *,
    start_step: int = 0,
    label: str = "",
    active: bool = True,
    stream: TextIO | None = None,
    every_s: float = 30.0,
  ):
    """Shows nothing yet.

    Args:
      total_steps: step at which the run ends.
      start_step: step at which it starts or resumes.
      label: shown in front, for instance the name of the phase.
      active: false on all processes but the first; then nothing is shown.
      stream: where to; standard error if None.
      every_s: least time between two plain lines, in seconds.
    """
    self._active = active
    self._total, self._label, self._every_s = total_steps, label, every_s
    self._stream = sys.stderr if stream is None else stream
    self._first: tuple[int, float] | None = None
    self._shown = -math.inf
    self._bar: tqdm.tqdm | None = None
    if active and _is_terminal(self._stream):
      self._bar = tqdm.tqdm(
        total=total_steps,
        initial=start_step,
        desc=f"{label} " if label else None,
        file=self._stream,
        dynamic_ncols=True,
        miniters=1,
        bar_format="{bar:12} {desc}step {n_fmt}/{total_fmt}{postfix}",
      )

  def update(
    self,
    step: int,
    terms: Mapping[str, Any],
    images_per_s: float,
    *,
    phase: str = "",
  ) -> None:
    """Shows the state after `step` updates.

    Args:
      step: number of finished updates.
      terms: name -> scalar, shown with four significant digits.
      images_per_s: throughput over all devices.
      phase: shown before the terms, if there are several.
    """
    if not self._active:
      return
    now = time.monotonic()
    self._first = self._first or (step, now)
    shown = [phase] if phase else []
    shown += [f"{name} {digits(value)}" for name, value in terms.items()]
    shown.append(f"{images_per_s:,.0f} images/s")
    shown.append(f"ETA {self._eta(step, now)}")
    if self._bar is not None:
      self._bar.set_postfix_str(", ".join(shown), refresh=False)
      self._bar.update(step - self._bar.n)
    elif now - self._shown >= self._every_s or step == self._total:
      self._shown = now
      head = f"{self._label} " if self._label else ""
      self.write(f"{head}step {step}/{self._total}  " + "  ".join(shown))

  def write(self, text: str) -> None:
    """Prints `text` on lines of its own, above the bar."""
    if not self._active:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Leaves the bar as it stands."""
    if self._bar is not None:
      self._bar.close()

  def _eta(self, step: int, now: float) -> str:
    # Counted from the first update, so that compilation does not inflate it.
    first_step, first_time = self._first or (step, now)
    if step >= self._total:
      return "00:00"
    if step == first_step:
      return "?"
    per_step = (now - first_time) / (step - first_step)
    return tqdm.tqdm.format_interval((self._total - step) * per_step)


def summary(values: Mapping[str, Any]) -> str:
  """Two aligned columns, one line per label; numbers are made readable."""
  return columns([[label, show(value)] for label, value in values.items()])


def tap_table(specs: Mapping[str, types.Specs]) -> str:
  """A table of tap shapes, one column per network, in the order they run.

  Args:
    specs: {'student': {tap: spec}, 'teacher': {tap: spec}}; the first
      dimension is the batch and shows as n.
  """
  taps = sorted({tap for side in specs.values() for tap in side}, key=_rank)
  rows = [
    [
      tap,
      *(_shape(side[tap]) if tap in side else "-" for side in specs.values()),
    ]
    for tap in taps
  ]
  return columns([["tap", *specs], *rows])


def digits(value: float) -> str:
  """Four significant digits, zeros kept so that columns stand still."""
  value = float(value)
  if 1000 <= abs(value) < 1e7:
    return f"{value:,.0f}"
  return f"{value:#.4g}".rstrip(".")


def show(value: Any) -> str:
  """A value as a person reads it: 1,234,567; 0.1; yes; text as it is."""
  if isinstance(value, bool | np.bool_):
    return "yes" if value else "no"
  if isinstance(value, int | np.integer):
    return f"{value:,}"
  if isinstance(value, float | np.floating):
    return digits(float(value)) if abs(value) >= 1000 else f"{value:.4g}"
  return str(value)


def columns(rows: Iterable[Iterable[str]]) -> str:
  """Rows of equal length as aligned lines of text."""
  table = [list(row) for row in rows]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  padded = (map(str.ljust, row, widths) for row in table)
  return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _is_terminal(stream: TextIO) -> bool:
  if not stream.isatty():
    return False
  try:
    return min(os.get_terminal_size(stream.fileno())) > 1
  except OSError:  # No file descriptor, or one that tells no size.
    return False


def _rank(tap: str) -> tuple[float, str]:
  # Taps of other names (a transformer's blocks) lie between stages and head.
  known = tap in _TAP_ORDER
  rank = _TAP_ORDER.index(tap if known else "feature")
  return (rank if known else rank - 0.5, tap)


def _shape(spec: jax.ShapeDtypeStruct) -> str:
  return " x ".join(["n", *map(str, spec.shape[1:])])


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
      f"{path} line {number} is no metrics line: {text[:60]!r}. Repair or "
      "delete that line; only an unfinished last line is dropped by itself."
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
