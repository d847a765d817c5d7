"""Which images a run could not read and left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import logging

from kd_jax import disk
from kd_jax.buckets import spool
from kd_jax.data.pipeline import Report
from kd_jax.interfaces import DataSource


class SkipLog:
  """Lists skipped records in the workdir, each once, also after a restart.

  Every process has its own file: 'skipped.txt', 'skipped-1.txt', ...

  Args:
    workdir: of the run.
  """

  def __init__(self, workdir: Path) -> None:
    index = jax.process_index()
    self.path = workdir / (f"skipped-{index}.txt" if index else "skipped.txt")
    known = self.path.read_text("utf-8") if self.path.exists() else ""
    self._known = set(known.splitlines())

  def __len__(self) -> int:
    return len(self._known)

  def report(self, source: DataSource) -> Report:
    """What the batches of `source` call."""

    def note(indices: Sequence[int]) -> None:
      names = dict.fromkeys(map(_line(source), indices))
      new = [name for name in names if name not in self._known]
      if not new:
        return
      self._known.update(new)
      text = "".join(f"{name}\n" for name in new)
      with (
        disk.writing(self.path.name, self.path.parent, len(text)),
        self.path.open("a", encoding="utf-8") as file,
      ):
        file.write(text)
      logging.warning(
        "%d unreadable images skipped so far, listed in %s; the last is %s",
        len(self),
        spool.address(self.path),
        new[-1],
      )

    return note


def _line(source: DataSource) -> Callable[[int], str]:
  def text(index: int) -> str:
    # File names may be any bytes; a line has to be text.
    name = source.describe(index).encode("utf-8", "backslashreplace").decode()
    return name.replace("\n", "\\n").replace("\r", "\\r")

  return text
