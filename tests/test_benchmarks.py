"""The benchmarks run, with tiny arguments; nothing is timed."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from benchmarks import (
  _contest,
  bank,
  convolutions,
  detection_ops,
  detection_step,
  kdep_step,
  pace,
  shards,
  svd_fit,
)

ROOT = pathlib.Path(__file__).parents[1]
TINY = ["--batch", "2", "--size", "32", "--steps", "1", "--rounds", "2"]
NETS = ["--teacher", "resnet18", "--student", "resnet18"]
NETS10 = ["--teachers", "resnet10t", "--student", "resnet10t"]


def rows(text, names):
  """{name: the numbers that follow it} of the lines that hold a name."""
  found = {}
  for line in text.splitlines():
    for name in names:
      if line.startswith(name + "  "):
        found[name] = [float(x) for x in line.removeprefix(name).split()]
  return found


@pytest.mark.slow
def test_kdep_step_without_pytorch(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "torch", None)
  kdep_step.main(TINY + NETS)
  text = capsys.readouterr().out
  assert "PyTorch is not installed: pip install torch" in text
  names = ("kdep", "teacher", "supervised", "kdep / supervised")
  found = rows(text, names)
  assert [len(found[n]) for n in names] == [4, 4, 4, 2]
  for name in names:
    assert np.isfinite(found[name]).all()
    # The last one is the time to compile, 0 where that was cached.
    assert min(found[name][:2]) > 0
  assert not [line for line in text.splitlines() if "/ PyTorch" in line]


def test_ratios_compare_rounds_and_minima(capsys):
  kdep, theirs, head = (
    _contest.Times(*seconds)
    for seconds in (
      ([2.0, 6.0, 9.0], [4.0, 3.0, 5.0]),
      ([1.0, 2.0, 9.0], [2.0, 3.0, 9.0]),
      ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
    )
  )
  times = {"kdep": kdep, "PyTorch kdep": theirs, "supervised": head}
  _contest.table(times, dict.fromkeys(times, 7.0), 12)
  text = capsys.readouterr().out
  names = (*times, "kdep / PyTorch kdep", "kdep / supervised")
  found = rows(text, names)
  assert found["kdep"] == [6000.0, 3000.0, 2.0, 1.0]
  assert found["PyTorch kdep"] == [2000.0, 2000.0, 6.0, 5.0]
  assert found["kdep / PyTorch kdep"] == [2.0, 1.5]
  assert found["kdep / supervised"] == [6.0, 3.0]


@pytest.mark.parametrize(
  ("theirs", "scale"),
  [
    ([1.0, 2.001], 1.0),
    ([1.0, float("nan")], 1.0),
    ([1.0, 2.0], 1.2),
    ([1.0, 2.0], float("nan")),
  ],
)
def test_different_losses_or_updates_are_refused(theirs, scale):
  mine, same = [1.0, 2.0], {"stem": np.arange(3.0), "fc": np.ones(2)}
  found = _contest.check([mine, mine], [same, same], "float32")
  assert "of 2 tensors at most 0e+00" in found
  other = {"stem": same["stem"] * scale, "fc": same["fc"]}
  with pytest.raises(ValueError, match="do not compute the same: first"):
    _contest.check([mine, theirs], [same, other], "float32")


@pytest.mark.slow
def test_svd_fit(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  arguments = ["svd_fit", "--rows", "1000", "--dim", "520"]
  monkeypatch.setattr(sys, "argv", arguments)
  svd_fit.main()
  lines = capsys.readouterr().out.splitlines()
  for case in svd_fit.CASES:
    (line,) = [x.split() for x in lines if case in x.split()]
    numbers = np.array([float(x) for x in line if x != case])
    assert np.isfinite(numbers).all() and (numbers >= 0).all()
    assert numbers[0] == 1000 and min(numbers[1:4]) > 0


@pytest.mark.slow
def test_bank(capsys):
  """All but the quickstart, whose figures tests/tasks look at."""
  parts = ["--parts", "step", "codec", "store", "input"]
  small = ["--records", "64", "--shard", "32", "--images", "16", "--view", "32"]
  bank.main([*parts, *TINY, *small, "--seconds", "0.01", *NETS10])
  text = capsys.readouterr().out
  losses = ("kdep online", "kdep bank", "kl online", "kl bank")
  found = rows(text, ("supervised", *losses, *bank.CODECS))
  assert found["supervised"][3:] == [1.0, 1.0]
  for name in losses:
    assert len(found[name]) == 5 and min(found[name]) > 0
  assert found["aligned 512 int8"] == [14 + 512, 134.8]
  assert len(found) == 5 + len(bank.CODECS)
  crops = rows(text, ("1 crops", "4 crops", "8 crops"))
  assert [len(x) for x in crops.values()] == [4, 4, 4]
  for what in ("write", "read 256"):
    assert f"marginal top 5, {what}" in text


@pytest.mark.slow
@pytest.mark.parametrize("delay", ["0", "0.001"])
def test_shards(capsys, delay):
  tiny = ["--count", "6", "--batch", "3", "--seconds", "0.01"]
  shards.main([*tiny, "--delay", delay])
  names = [
    f"{kind} {order}"
    for order in ("random", "blocks")
    for kind in ("tars", "parquet", "arrow")
  ]
  lines = capsys.readouterr().out.splitlines()
  for name in names:
    (line,) = [line for line in lines if line.startswith(name)]
    rate, _, views = map(int, line.removeprefix(name).split())
    assert rate > 0 and views > 0


@pytest.mark.slow
def test_detection_ops(capsys):
  detection_ops.main(["--rounds", "1", "--side", "64", "--channels", "4"])
  text = capsys.readouterr().out
  names = ("suppression 1000", "suppression 12000", "sampling of 268569")
  names += ("RoIAlign", "RoIAlign, gradient")
  found = rows(text, names)
  assert [*found] == [*names]
  for numbers in found.values():
    assert len(numbers) == 3 and min(numbers[:2]) > 0


@pytest.mark.slow
def test_detection_step(capsys):
  detection_step.main(["--batch", "1", "--size", "64", "--rounds", "1"])
  text = capsys.readouterr().out
  names = ("step, 0 objects", "step, 100 objects", "answer")
  found = rows(text, names)
  # One program for both.
  assert [found[n][1] for n in names] == [1, 1, 1]
  assert "100 objects / none" in text


@pytest.mark.slow
def test_pace(capsys):
  tiny = ["--size", "32", "--batch", "2", "--rounds", "1", "--torch", "off"]
  pace.main([*tiny, "--only", "r50-r18-112", "--profile", "400"])
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if line.startswith("kdep ")]
  rates = [line.split()[:2] for line in lines if " convolution f32[" in line]
  assert len(rates) > 20 and all(float(rate) >= 0 for _, rate in rates)


@pytest.mark.slow
def test_convolutions(capsys):
  convolutions.main(["--rounds", "1", "--batch", "1", "--shapes", "2"])
  lines = capsys.readouterr().out.splitlines()
  for kind in ("forward", "weight", "input"):
    found = [line for line in lines if line.startswith(f"  {kind}")]
    assert len(found) == 2 and all(line.count("*") == 1 for line in found)
