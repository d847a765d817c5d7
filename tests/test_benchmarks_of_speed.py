"""Benchmarks of growth, banks and accelerators run, with tiny arguments."""

import os
import pathlib
import subprocess

import pytest

from benchmarks import bank_loop, growth, sweep

ROOT = pathlib.Path(__file__).parents[1]


def test_figures_of_growth_leave_out_the_first_fifth():
  points = [
    growth.Point(step, cpu, memory)
    for step, cpu, memory in (
      (1, 9.0, 100.0),
      (20, 10.0, 150.0),
      (100, 14, 160),
    )
  ]
  assert growth.figures(points) == (9.0, 50.0, 160.0, 10.0)


@pytest.mark.slow
def test_bank_loop_reads_and_trains(capsys):
  arguments = (
    "--teachers resnet10t --student resnet10t --size 32 --batch 4 "
    "--crops 2 --seconds 0.1 --rounds 1 --steps 1 --images 8"
  )
  bank_loop.main(arguments.split())
  *_, row = capsys.readouterr().out.splitlines()
  crops, *figures = row.split()[:7]
  assert crops == "2"
  assert all(float(x) > 0 for x in figures)


@pytest.mark.slow
def test_sweep_counts_operations_and_memory(capsys):
  arguments = (
    "--methods kdep --teacher resnet10t --student resnet10t "
    "--size 32 --batches 2 4 --steps 1 --rounds 1 --sides 64"
  )
  sweep.main(arguments.split())
  head, _, *rows = capsys.readouterr().out.splitlines()
  assert "measured peak" in head
  names = [row[:36].strip() for row in rows]
  assert names == ["kdep", "kdep", "kdep, canvas", "kdep, teacher in bfloat16"]
  for row in rows:
    _, _, images, _, share, gigabytes = row[36:].split()
    assert int(images) > 0
    assert float(share.rstrip("%")) > 0
    assert float(gigabytes) > 0


def test_the_script_for_accelerators_names_what_failed(tmp_path):
  """With a Python that always fails: every part is tried, and all are named."""
  fake = tmp_path / "bin" / "python"
  fake.parent.mkdir()
  fake.write_text("#!/bin/sh\necho ran $2; exit 3\n")
  fake.chmod(0o755)
  path = f"{fake.parent}:{os.environ['PATH']}"
  found = subprocess.run(
    ["bash", ROOT / "benchmarks/gpu.sh", tmp_path / "out"],
    env={**os.environ, "PATH": path},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 1
  parts = ["smoke", "kdep", "sweep", "bank", "input", "dtype"]
  *_, last = found.stdout.splitlines()
  assert last == "failed or out of time: " + " ".join(f"{x} (3)" for x in parts)
  kept = sorted(file.stem for file in (tmp_path / "out").glob("*.txt"))
  assert kept == sorted(parts)


def test_all_parts_of_the_script_exist():
  text = (ROOT / "benchmarks/gpu.sh").read_text()
  modules = [
    line.split()[3]
    for line in text.splitlines()
    if line.startswith("part ") and line.split()[3].startswith("benchmarks.")
  ]
  assert len(modules) == 5
  for module in modules:
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()
