"""Runs `kd_jax.main` in this process and notes where its time goes.

  python -m benchmarks._start_clock OUT BEGAN --config FILE ...

OUT is the JSON file that `benchmarks.start` reads, BEGAN the time in seconds
since the epoch at which this process was asked for. The program is the one
that users run: modules are watched while they are imported, a few functions
are wrapped once their module is there, and JAX tells what it compiles.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FIRST = "first step"

PHASES = {
  ("kd_jax.config", "load"): "flags and config",
  ("kd_jax.build.images", "source"): "data: the images",
  ("kd_jax.build.networks", "teaching"): "teacher: weights",
  ("kd_jax.build.experiment", "_specs"): "shapes of all taps",
  ("kd_jax.tasks.pretrain", "build_experiment"): "build: the rest",
  ("kd_jax.tasks.pretrain", "_draw_views"): "sheet of views",
  ("kd_jax.train.bucket.checkpoints", "opened"): "checkpoints: open",
  ("kd_jax.train.teacher.artifact", "fitted"): "statistics of taps",
  ("kd_jax.running.training", "_job"): "teacher: placing",
  ("kd_jax.running.training", "_start"): "initialisation",
  ("kd_jax.report.trackers.together", "Trackers"): "logs: open",
  ("kd_jax.train.loop", "Run._stretch"): "data: first batch",
  ("kd_jax.train.checkpoints", "Checkpoints.save"): "checkpoints: save",
  ("kd_jax.running.training", "host_variables"): "export and report",
  ("kd_jax.tasks.pretrain", "_finish"): "export and report",
}
"""{(module, function): what it does}; an inner one is not in its outer."""

_KINDS = {
  "/jax/core/compile/jaxpr_trace_duration": "trace",
  "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
  "/jax/core/compile/backend_compile_duration": "compile",
}


class Clock:
  """Seconds by what they went into, each counted once.

  Attributes:
    wall: {what: seconds}.
    cpu: {what: seconds of all threads of this process}.
    parts: {(what, 'trace', 'lower' or 'compile'): seconds of `wall`}.
    imports: {package: seconds} before the first step.
    programs: [(name, seconds)] that XLA compiled or read from the cache.
    first: seconds, programs and modules up to the end of the first step.
  """

  def __init__(self, began: float) -> None:
    self._thread = threading.get_ident()
    self._stack = ["Python"]
    self._now = time.monotonic() - (time.time() - began), 0.0
    self.wall: collections.Counter[str] = collections.Counter()
    self.cpu: collections.Counter[str] = collections.Counter()
    self.parts: collections.Counter[tuple[str, str]] = collections.Counter()
    self.imports: collections.Counter[str] = collections.Counter()
    self.programs: list[tuple[str, float]] = []
    self.first: dict[str, Any] = {}
    self._told: dict[int, list[tuple[float, float]]] = collections.defaultdict(
      list
    )

  @contextlib.contextmanager
  def within(self, what: str) -> Iterator[None]:
    """What happens in the block is `what`; other threads are not asked."""
    if threading.get_ident() != self._thread:
      yield
      return
    self.turn()
    self._stack.append(what)
    try:
      yield
    finally:
      self.turn()
      self._stack.pop()

  def turn(self, what: str = "") -> None:
    """Counts up to now; from now on the innermost thing is `what`."""
    then, self._now = self._now, (time.monotonic(), time.process_time())
    top = self._stack[-1]
    row = top
    if top.startswith("import "):
      row = "later imports" if self.first else "imports"
    self.wall[row] += self._now[0] - then[0]
    self.cpu[row] += self._now[1] - then[1]
    if top.startswith("import ") and not self.first:
      self.imports[top.split()[1]] += self._now[0] - then[0]
    if what:
      self._stack[-1] = what

  def told(self, event: str, seconds: float, **about: Any) -> None:
    """JAX has traced, lowered or compiled something."""
    if event not in _KINDS:
      return
    kind, thread = _KINDS[event], threading.get_ident()
    top = self._stack[-1] if thread == self._thread else "other threads"
    self.parts[top, kind] += self._own(thread, seconds)
    if kind == "compile":
      self.programs.append((str(about.get("fun_name", "?")), seconds))

  def _own(self, thread: int, seconds: float) -> float:
    """Less what was told within: functions are traced inside each other."""
    start, inner = time.monotonic() - seconds, 0.0
    told = self._told[thread]
    while told and told[-1][0] >= start:
      inner += told.pop()[1]
    told.append((start, seconds))
    return seconds - inner

  def stepped(self) -> None:
    """The first step of the process is done."""
    self.turn()
    if not self.first:
      self.first = {
        "wall": sum(self.wall.values()),
        "cpu": sum(self.cpu.values()),
        "programs": len(self.programs),
        "modules": sorted(sys.modules),
      }


class Watch(importlib.abc.MetaPathFinder):
  """Times imports, and wraps what is to be timed in them."""

  def __init__(self, clock: Clock) -> None:
    self._clock = clock

  def find_spec(
    self,
    name: str,
    path: Sequence[str] | None,
    target: ModuleType | None = None,
  ) -> importlib.machinery.ModuleSpec | None:
    """The spec that Python would find, with a loader that is timed."""
    package = f"import {name.partition('.')[0]}"
    with self._clock.within(package):
      spec = importlib.machinery.PathFinder.find_spec(name, path, target)
    if spec is None or spec.loader is None:
      return spec
    run = spec.loader.exec_module

    def timed(module: ModuleType) -> None:
      with self._clock.within(package):
        run(module)
      self._after(name, module)

    spec.loader.exec_module = timed  # type: ignore[method-assign]
    return spec

  def _after(self, name: str, module: ModuleType) -> None:
    if name == "jax":
      listen = module.monitoring.register_event_duration_secs_listener
      listen(self._clock.told)
    for (where, path), what in PHASES.items():
      if where == name:
        wrap(module, path, self._phase(what))
    if name == "kd_jax.train.loop":
      wrap(module.mesh_lib, "put_batch", self._turns(FIRST))
      wrap(module, "Run._log", self._steps)

  def _phase(self, what: str) -> Callable[[Any], Any]:
    def wrapper(function: Any) -> Any:
      @functools.wraps(function)
      def timed(*args: Any, **more: Any) -> Any:
        with self._clock.within(what):
          return function(*args, **more)

      return timed

    return wrapper

  def _turns(self, what: str) -> Callable[[Any], Any]:
    def wrapper(function: Any) -> Any:
      def timed(*args: Any, **more: Any) -> Any:
        if not self._clock.first:
          self._clock.turn(what)
        return function(*args, **more)

      return timed

    return wrapper

  def _steps(self, function: Any) -> Any:
    def timed(*args: Any, **more: Any) -> Any:
      self._clock.stepped()
      self._clock.turn("later steps")
      return function(*args, **more)

    return timed


def wrap(module: ModuleType, path: str, wrapper: Callable[[Any], Any]) -> None:
  """Replaces the function at `path` of a module."""
  *outer, name = path.split(".")
  owner = functools.reduce(getattr, outer, module)
  setattr(owner, name, wrapper(getattr(owner, name)))


def main(argv: Sequence[str]) -> int:
  """Runs `kd_jax.main` and writes what the clock says."""
  out, began, *rest = argv
  clock = Clock(float(began))
  clock.turn("rest")
  sys.meta_path.insert(0, Watch(clock))
  try:
    from kd_jax import main as program

    return program.main(rest)
  finally:
    clock.turn()
    Path(out).write_text(json.dumps(_told(clock)))


def _told(clock: Clock) -> dict[str, Any]:
  phases = [
    {
      "name": name,
      "wall": wall,
      "cpu": clock.cpu[name],
      **{kind: clock.parts[name, kind] for kind in _KINDS.values()},
    }
    for name, wall in clock.wall.items()
  ]
  return {
    "phases": phases,
    "imports": clock.imports,
    "programs": clock.programs,
    "first": clock.first,
  }


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
