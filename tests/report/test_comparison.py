from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from kd_jax.report import comparison, page, plots, tables

VALUES = {
  "scratch": {"pets": [0.5, 0.6, 0.7], "cars": [0.30, 0.31, 0.35]},
  "kdep": {"pets": [0.6, 0.7, 0.83], "cars": [0.40, 0.43, 0.41]},
  "timm": {"pets": [0.9, 0.9, 0.9]},
}
GIVEN = comparison.Comparison(VALUES, "scratch", "Top-1")


def error(values):
  return np.std(values, ddof=1) / np.sqrt(len(values))


def test_means_errors_and_the_mean_over_data_sets():
  found = GIVEN.value("kdep", "pets")
  values = VALUES["kdep"]["pets"]
  assert found == pytest.approx((np.mean(values), error(values)))
  both = GIVEN.value("kdep", "mean")
  errors = [error(x) for x in VALUES["kdep"].values()]
  assert both.mean == pytest.approx((0.71 + 0.41333333) / 2)
  assert both.error == pytest.approx(np.hypot(*errors) / 2)
  assert GIVEN.value("timm", "cars") is GIVEN.value("timm", "mean") is None


def test_differences_are_paired():
  each = np.subtract(VALUES["kdep"]["pets"], VALUES["scratch"]["pets"])
  found = GIVEN.difference("kdep", "pets")
  assert found == pytest.approx((each.mean(), error(each)))
  other = np.subtract(VALUES["kdep"]["cars"], VALUES["scratch"]["cars"])
  both = GIVEN.difference("kdep", "mean")
  wanted = (each.mean() + other.mean()) / 2
  assert both == pytest.approx(
    (wanted, np.hypot(error(each), error(other)) / 2)
  )
  assert GIVEN.difference("scratch", "pets") is None


def test_files_hold_what_the_page_shows(tmp_path):
  comparison.write(tmp_path, GIVEN)
  text = (tmp_path / "comparison.md").read_text()
  assert "|  | pets | cars | mean |" in text
  assert "| scratch | 60.00 ± 5.77 | 32.00 ± 1.53 | 46.00 ± 2.99 |" in text
  assert "| timm | 90.00 ± 0.00 | - | - |" in text
  assert "| kdep | +11.00 ± 1.00 | +9.33 ± 1.76 | +10.17 ± 1.01 |" in text
  lines = csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text()))
  rows = {(x["row"], x["column"]): x for x in lines}
  assert len(rows) == 5 and rows["scratch", "pets"]["difference"] == ""
  kdep = rows["kdep", "pets"]
  assert [*map(float, kdep["values"].split())] == VALUES["kdep"]["pets"]
  assert float(kdep["difference_error"]) == pytest.approx(0.01)
  shown = page.write_report(tmp_path).read_text()
  assert "+11.00 ± 1.00" in shown and "scratch, seed by seed" in shown
  assert shown.count("data:image/png") == 1


def test_the_chart_has_a_panel_per_data_set(monkeypatch):
  kept, png = [], plots.png
  monkeypatch.setattr(plots, "png", lambda fig: kept.append(fig) or png(fig))
  assert comparison.chart(GIVEN).startswith(b"\x89PNG")
  titles = [ax.get_title(loc="left") for ax in kept[0].axes]
  assert titles == ["pets", "cars", "mean"]
  pets, cars, _ = kept[0].axes
  np.testing.assert_allclose(np.ravel(marked(pets, "|")), [11, 30])
  np.testing.assert_allclose(np.ravel(marked(cars, "|")), [28 / 3])
  np.testing.assert_allclose(marked(pets, "o"), [[10, 10, 13], [40, 30, 20]])


def marked(ax, marker):
  """x of all lines that are drawn with a marker."""
  found = [x.get_xdata() for x in ax.lines if x.get_marker() == marker]
  return np.asarray(found, float)


def test_a_single_seed_has_no_error_and_one_column_no_mean():
  one = comparison.Comparison({"a": {"x": [0.5]}, "b": {"x": [0.25]}}, "a")
  assert one.difference("b", "x") == (-0.25, None)
  found = comparison.results_table(one)
  assert found.header == ("", "x")
  assert found.rows == (("a", "50.00 ± ?"), ("b", "25.00 ± ?"))
  assert tables.markdown(comparison.difference_table(one)).count("±") == 1


def test_what_cannot_be_compared_is_refused():
  with pytest.raises(ValueError, match="baseline 'c' is none of the rows"):
    comparison.Comparison({"a": {}}, "c")
  values = {"a": {"x": [0.5, 0.6]}, "b": {"x": [0.5]}}
  with pytest.raises(ValueError, match="'b' on 'x' has 1 values .* same seeds"):
    comparison.Comparison(values, "a")
  with pytest.raises(ValueError, match="cannot be called 'mean'"):
    comparison.Comparison({"a": {"mean": [0.5]}})
