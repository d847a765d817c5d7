from __future__ import annotations

import numpy as np
import sheets

from kd_jax.report.pictures import mistakes
from kd_jax.report.pictures import sheet as sheet_lib


def test_the_surest_mistakes_come_first():
  label = np.array([0, 0, 0, 1, 1, -1])
  prediction = np.array([1, 0, 2, 0, 1, 0])
  confidence = np.array([0.5, 0.9, 0.7, 0.6, 0.8, 1.0])
  found = mistakes.chosen(label, prediction, confidence, [1, 0, 2])
  assert found == {1: [3], 0: [2, 0], 2: []}
  assert [*found] == [1, 0, 2]
  few = mistakes.chosen(label, prediction, confidence, [0], most=1)
  assert few == {0: [2]}


def test_a_row_per_class(monkeypatch):
  written = []
  text = sheet_lib.Sheet.text

  def keep(sheet, words, *place, **how):
    written.append(words)
    text(sheet, words, *place, **how)

  monkeypatch.setattr(sheet_lib.Sheet, "text", keep)
  red, blue = (
    np.full((8, 8, 3), c, np.uint8) for c in ([255, 0, 0], [0, 0, 255])
  )
  png = mistakes.draw(
    [
      ("cat", [mistakes.Mistake(red, "dog", 0.987)] * 9),
      ("dog", [mistakes.Mistake(blue, "a very long name", 0.5)]),
    ]
  )
  assert written[1:4] == ["cat", "dog 0.99", "dog 0.99"]
  assert written[-2:] == ["dog", "a very lon… 0.50"]
  found = sheets.pixels(png)
  first, second = found[80, ::1, :3], found[240, :, :3]
  assert (first == [255, 0, 0]).all(-1).sum() > 8 * 90
  assert 90 < (second == [0, 0, 255]).all(-1).sum() < 110
