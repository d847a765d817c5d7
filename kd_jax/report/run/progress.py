"""The live line that a person sees while a run trains."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import tqdm

from kd_jax.report.tables import digits


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
    brief: bool = False,
  ):
    """Shows nothing yet.

    Args:
      total_steps: step at which the run ends.
      start_step: step at which it starts or resumes.
      label: shown in front, for instance the name of the phase.
      active: false on all processes but the first; then nothing is shown.
      stream: where to; standard error if None.
      every_s: least time between two plain lines, in seconds.
      brief: no plain lines for the first and the last step: one of many runs.
    """
    self._active = active
    self._total, self._label, self._every_s = total_steps, label, every_s
    self._stream = sys.stderr if stream is None else stream
    self._first: tuple[int, float] | None = None
    self._brief = brief
    self._shown = time.monotonic() if brief else -math.inf
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
    losses: Mapping[str, Any],
    rate: float,
    *,
    phase: str = "",
  ) -> None:
    """Shows the state after `step` updates.

    Args:
      step: number of finished updates.
      losses: name -> scalar, shown with four significant digits.
      rate: images per second, over all devices.
      phase: shown before the losses, if there are several.
    """
    if not self._active:
      return
    now = time.monotonic()
    self._first = self._first or (step, now)
    shown = [phase] if phase else []
    shown += [f"{name} {digits(value)}" for name, value in losses.items()]
    shown.append(f"{rate:,.0f} images/s")
    shown.append(f"ETA {self._eta(step, now)}")
    if self._bar is not None:
      self._bar.set_postfix_str(", ".join(shown), refresh=False)
      self._bar.update(step - self._bar.n)
    elif now - self._shown >= self._every_s or self._ends(step):
      self._shown = now
      head = f"{self._label} " if self._label else ""
      self.write(f"{head}step {step}/{self._total}  " + "  ".join(shown))

  def _ends(self, step: int) -> bool:
    return step == self._total and not self._brief

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


def _is_terminal(stream: TextIO) -> bool:
  if not stream.isatty():
    return False
  try:
    return min(os.get_terminal_size(stream.fileno())) > 1
  except OSError:  # No file descriptor, or one that tells no size.
    return False
