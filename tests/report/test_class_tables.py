from __future__ import annotations

import numpy as np
import pytest

from kd_jax.report import classes, plots
from kd_jax.transfer import confusion

COUNTS = np.array([[6, 3, 1, 0], [0, 9, 1, 0], [4, 4, 2, 0], [0, 0, 0, 0]])
NAMES = ("cat", "dog", "a very long name of a class", "ghost")


def drawn(monkeypatch, call):
  """The figure that `call` draws."""
  kept = []
  png = plots.png
  monkeypatch.setattr(plots, "png", lambda fig: kept.append(fig) or png(fig))
  assert call().startswith(b"\x89PNG")
  return kept[0]


def words(items):
  return [item.get_text() for item in items]


def test_the_worst_classes_and_what_they_are_taken_for():
  found = classes.worst_table(classes.Judged(COUNTS, NAMES), 2)
  assert found.header[1:3] == ("accuracy (%)", "samples")
  assert found.rows == (
    (NAMES[2], 20.0, 10, "cat, 40.0 % (4)"),
    ("cat", 60.0, 10, "dog, 30.0 % (3)"),
  )
  by_iou = classes.worst_table(classes.Judged(COUNTS, NAMES, iou=True))
  iou = 100 * confusion.iou(COUNTS)
  assert [row[1] for row in by_iou.rows] == [*np.round(np.sort(iou[:3]), 2)]
  assert by_iou.header[2] == "pixels"
  perfect = classes.worst_table(classes.Judged(np.eye(2, dtype=int)))
  assert perfect.rows == (("0", 100.0, 1, None), ("1", 100.0, 1, None))


def test_cells_hold_shares_of_their_row(monkeypatch):
  judged = classes.Judged(COUNTS, NAMES)
  (ax,) = drawn(monkeypatch, lambda: classes.matrix(judged)).axes
  image = ax.images[0].get_array()
  alpha = image[..., 3] / 0.9
  np.testing.assert_allclose(np.diag(alpha), [0.6, 0.9, 0.2, 0])
  np.testing.assert_allclose(alpha[0, 1] ** 2, 0.3)
  assert words(ax.texts)[:4] == ["60", "30", "10", ""]
  assert words(ax.get_yticklabels()) == [
    *NAMES[:2],
    "a very long name …",
    "ghost",
  ]


def test_names_of_150_classes_stand_beside_every_row(monkeypatch):
  judged = classes.Judged(np.eye(150, dtype=int))
  fig = drawn(monkeypatch, lambda: classes.matrix(judged))
  (ax,) = fig.axes
  assert words(ax.get_yticklabels()) == [str(i) for i in range(150)]
  assert words(ax.get_xticklabels()) == [str(i) for i in range(0, 150, 2)]
  inches = ax.get_window_extent().height / fig.dpi
  assert inches / 150 > 6 / 72  # No two names overlap.
  assert not ax.texts


@pytest.mark.parametrize("count", [4, 120])
def test_bars_are_sorted_and_say_what_is_absent(monkeypatch, count):
  rng = np.random.default_rng(0)
  counts = np.diag(rng.integers(5, 99, count))
  counts[:, 1] += rng.integers(0, 9, count)
  counts[0] = 0
  judged = classes.Judged(counts, iou=True)
  fig = drawn(monkeypatch, lambda: classes.bars(judged))
  widths = [bar.get_width() for ax in fig.axes for bar in ax.patches]
  assert len(fig.axes) == -(-count // 50) and len(widths) == count
  np.testing.assert_allclose(widths, 100 * np.sort(confusion.iou(counts))[::-1])
  assert widths[-2] > 0 and widths[0] > widths[-2]
  assert words(fig.axes[-1].texts)[-1] == "absent"
  assert "of those that occur" in fig.get_suptitle()
