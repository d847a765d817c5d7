"""What the clock of benchmarks/start.py counts; nothing is timed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from benchmarks import _start_clock, start

TRACE = "/jax/core/compile/jaxpr_trace_duration"
COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(_start_clock.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(_start_clock.time, "process_time", lambda: now[0] / 2)
  found = _start_clock.Clock(time.time())
  found.turn("rest")

  def wait(seconds):
    now[0] += seconds

  return found, wait


def test_a_second_counts_once(clock):
  found, wait = clock
  with found.within("outer"):
    wait(1)
    with found.within("import numpy.linalg"):
      wait(2)
    wait(4)
  wait(8)
  found.turn("more")
  wait(16)
  found.stepped()
  walls = {k: v for k, v in found.wall.items() if k != "Python"}
  assert walls == {"outer": 5, "imports": 2, "rest": 8, "more": 16}
  assert found.cpu["outer"] == 2.5
  assert found.imports == {"numpy.linalg": 2}
  assert found.first["wall"] == pytest.approx(31, abs=0.5)


def test_what_is_traced_within_is_not_counted_twice(clock):
  found, wait = clock
  with found.within("shapes"):
    wait(3)
    found.told(TRACE, 1.0)  # from 2 to 3
    wait(1)
    found.told(COMPILE, 0.5, fun_name="jit(add)")  # from 3.5 to 4
    wait(1)
    found.told(TRACE, 4.0, fun_name="step")  # from 1 to 5
    found.told("/jax/other", 9.0)
  assert found.parts == {("shapes", "trace"): 3.5, ("shapes", "compile"): 0.5}
  assert found.programs == [("jit(add)", 0.5)]


def test_table_adds_up():
  rows = [
    {"name": "imports", "wall": 2.0, "cpu": 1.0},
    {"name": "first step", "wall": 3.0, "cpu": 5.0, "trace": 0.25},
  ]
  text = start.table(
    {
      "phases": rows,
      "first": {"wall": 4.0, "cpu": 4.5, "programs": 1, "modules": ["sys"]},
      "programs": [("jit(a)", 0.5), ("jit(b)", 1.5)],
      "imports": {"jax": 2.0},
    },
    most=1,
  )
  lines = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
  assert lines["to the end"] == ["5.00", "6.00", "0.25", "0.00", "0.00"]
  assert lines["to the first step"] == ["4.00", "4.50"]
  assert "1 programs to the first step, 2 in all" in text
  assert "jit(b)" in text
  assert "jit(a)" not in text


def test_wrapped_functions_exist():
  import importlib

  for (module, path), what in _start_clock.PHASES.items():
    found = importlib.import_module(module)
    for part in path.split("."):
      found = getattr(found, part)
    assert callable(found), what


@pytest.mark.slow
def test_the_clock_runs_the_program(tmp_path):
  out = tmp_path / "told.json"
  subprocess.run(
    [
      *(sys.executable, "-m", "benchmarks._start_clock", out, "0"),
      *("--config", "configs/kdep_r18.py:smoke"),
      *("--workdir", tmp_path / "run"),
    ],
    check=True,
    capture_output=True,
  )
  told = json.loads(out.read_text())
  names = [row["name"] for row in told["phases"]]
  assert {"imports", "initialisation", "first step"} <= set(names)
  assert told["first"]["programs"] > 0
  packages = {name.partition(".")[0] for name in told["first"]["modules"]}
  assert {"jax", "kd_jax"} <= packages
  assert not packages & {"sklearn", "pandas", "pyarrow", "tensorflow", "torch"}
