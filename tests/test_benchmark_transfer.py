"""The benchmark of fine-tuning steps compares what it says; no time counts."""

import numpy as np
import pytest

from benchmarks import transfer_step


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "segment"])
def test_both_sides_agree(task, capsys):
  tiny = ["--batch", "4", "--size", "32", "--steps", "1", "--rounds", "2"]
  transfer_step.main(["--task", task, *tiny])
  text = capsys.readouterr().out
  assert f"{task}, resnet18, batch 4 of 32px" in text and "updates" in text
  (line,) = [x for x in text.splitlines() if x.startswith("trainer / bare")]
  ratios = [float(x) for x in line.split()[3:5]]
  assert np.isfinite(ratios).all() and min(ratios) > 0


def test_ratios_are_medians_over_the_rounds(capsys):
  times = {
    "trainer": [(2.0, 1.0), (3.0, 6.0), (8.0, 9.0)],
    "bare": [(1.0, 1.0), (3.0, 2.0), (2.0, 3.0)],
  }
  transfer_step.table(times)
  last = capsys.readouterr().out.splitlines()[-1]
  assert last.split()[3:5] == ["2.000", "3.000"]


@pytest.mark.parametrize(
  ("loss", "scale"), [(1.01, 1.0), (1.0, 1.01), (1.0, float("nan"))]
)
def test_sides_that_differ_are_refused(loss, scale):
  start = {"a": np.zeros(3), "b": np.zeros(2)}
  mine = {"a": np.arange(3.0), "b": np.ones(2)}
  found = transfer_step.check([1.0, 1.0], [mine, mine], start)
  assert "updates 0e+00 apart" in found
  theirs = {**mine, "a": scale * mine["a"]}
  with pytest.raises(ValueError, match="do not compute the same: losses"):
    transfer_step.check([1.0, loss], [mine, theirs], start)
