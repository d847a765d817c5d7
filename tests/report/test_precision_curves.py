from __future__ import annotations

import numpy as np
import pytest

from kd_jax.report import average_precision, plots
from kd_jax.transfer.average_precision.judged import Curve, Judged, no_curve


def judged(values, absent=(), **more):
  """Of classes whose precision is 1 up to a recall."""
  values = np.array(values, float)
  values[list(absent)] = np.nan
  grid = np.linspace(0, 1, 11)
  curves = [
    no_curve() if np.isnan(x) else Curve(grid, (grid <= x) * 1.0, grid)
    for x in values
  ]
  by_class = {"ap": values / 2, "ap50": values, "ap75": values / 4}
  objects = np.where(np.isnan(values), 0, 10)
  return Judged("a rule", {}, {**by_class, **more}, objects, tuple(curves))


def drawn(monkeypatch, found, names):
  kept = []
  png = plots.png
  monkeypatch.setattr(plots, "png", lambda fig: kept.append(fig) or png(fig))
  assert average_precision.curves(found, names).startswith(b"\x89PNG")
  return kept[0]


def test_a_panel_per_class_the_lowest_first(monkeypatch):
  found = judged([0.9, 0.5, 0.7, 0.2], absent=[3])
  fig = drawn(
    monkeypatch, found, ("cat", "dog", "a very long name of it", "no")
  )
  shown = [ax for ax in fig.axes if ax.axison]
  titles = [ax.get_title(loc="left") for ax in shown]
  assert titles == ["dog  50.0 %", "a very long name …  70.0 %", "cat  90.0 %"]
  mean, line = (np.array(x.get_ydata()) for x in shown[0].lines)
  np.testing.assert_array_equal(line, 100.0 * (np.linspace(0, 1, 101) <= 0.5))
  assert mean[60] == pytest.approx(200 / 3) and mean[80] == pytest.approx(
    100 / 3
  )
  assert "lowest" not in fig.get_suptitle() and "a rule" in fig.get_suptitle()


def test_of_many_classes_the_lowest_are_shown(monkeypatch):
  values = np.linspace(1, 0.1, 80)
  fig = drawn(monkeypatch, judged(values), [str(i) for i in range(80)])
  titles = [ax.get_title(loc="left").split()[0] for ax in fig.axes]
  assert titles == [str(i) for i in range(79, 59, -1)]
  assert fig.get_suptitle().endswith("; the lowest 20 of 80")


def test_a_curve_is_read_at_every_recall():
  curve = Curve(
    np.array([0.25, 0.5, 0.5]), np.array([1.0, 0.6, 0.6]), np.zeros(3)
  )
  found = average_precision.sampled(curve)
  assert found[[0, 25, 26, 50, 51, 100]].tolist() == [1, 1, 0.6, 0.6, 0, 0]


def test_the_table_of_classes():
  found = judged([0.9, 0.3, 0.7], absent=[1])
  table = average_precision.class_table(found, ("cat", "dog", "cow"))
  assert table.header == (
    *("class", "AP (%)", "AP50 (%)", "AP75 (%)", "objects"),
  )
  assert table.rows == (
    ("cow", 35.0, 70.0, 17.5, 10),
    ("cat", 45.0, 90.0, 22.5, 10),
    ("dog", None, None, None, 0),
  )
  more = judged([0.9], ar100=np.array([0.5]))
  table = average_precision.class_table(more, ("cat",))
  assert table.header[4] == "AR100 (%)" and table.rows[0][4] == 50.0
  assert table.title == "Average precision of every class (a rule)"
