"""The benchmark of merged networks compares their outputs; no time counts."""

import pytest

from benchmarks import fused


def test_a_line_per_model(capsys):
  fused.main(["--models", "test_byobnet", "--size", "32", "--rounds", "1"])
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith("test_byobnet") and "fused / trained" in line


def test_networks_that_differ_are_refused(monkeypatch):
  plain = fused.sides("test_byobnet")[0]
  other = lambda x: 1.001 * plain(x)  # noqa: E731
  monkeypatch.setattr(fused, "sides", lambda name: (plain, other))
  with pytest.raises(
    ValueError, match="test_byobnet: the outputs are .* apart"
  ):
    fused.main(["--models", "test_byobnet", "--size", "32"])
