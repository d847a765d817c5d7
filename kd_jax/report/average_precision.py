"""How well each class of objects is found: curves and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from kd_jax.report import plots, tables
from kd_jax.report.plots import COLORS, INK
from kd_jax.transfer.average_precision.judged import Curve, Judged

if TYPE_CHECKING:
  from matplotlib import axes

_PANELS, _PER_ROW = 20, 5  # Of curves; further classes are left out.
_WIDE, _HIGH = 9.0, 1.75  # Inches, of all and of a row.
_NAME = 18  # Letters of a name that are shown.
_GRID = np.linspace(0, 1, 101)
_COLUMNS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar100": "AR100"}


def curves(judged: Judged, names: Sequence[str]) -> bytes:
  """A PNG: precision against recall at IoU .5, a panel per class.

  The classes of the lowest AP50 come first, and of more than 20 only they are
  shown. The mean over all classes that occur is dashed in every panel.

  Args:
    judged: by the rules of COCO or VOC.
    names: of all classes, in order.
  """
  order = _order(judged.by_class["ap50"])
  seen = order[: int((judged.objects > 0).sum())]
  lines = [sampled(judged.curves[index]) for index in seen]
  mean, seen = np.mean(lines, 0), seen[:_PANELS]
  rows = math.ceil(len(seen) / _PER_ROW)
  size = (_WIDE, 0.7 + _HIGH * rows)
  from matplotlib import figure

  fig = figure.Figure(figsize=size, layout="constrained")
  grid = fig.subplots(rows, _PER_ROW, squeeze=False, sharex=True, sharey=True)
  for ax in grid.flat[len(seen) :]:
    ax.set_axis_off()
  for ax, index, line in zip(grid.flat, seen, lines, strict=False):
    value = judged.by_class["ap50"][index]
    _panel(ax, f"{_short(names[index])}  {100 * value:.1f} %", line, mean)
  fig.suptitle(_title(judged, len(seen)), fontsize=10, color=INK, weight="bold")
  fig.supxlabel("recall (%)", fontsize=9, color=INK)
  fig.supylabel("precision (%)", fontsize=9, color=INK)
  return plots.png(fig)


def class_table(judged: Judged, names: Sequence[str]) -> tables.Table:
  """Figures of every class in per cent, and its objects; the lowest first.

  Args:
    judged: by the rules of COCO or VOC.
    names: of all classes, in order.
  """
  known = [name for name in _COLUMNS if name in judged.by_class]
  rows = []
  for index in _order(judged.by_class["ap"]):
    values = [_per_cent(judged.by_class[name][index]) for name in known]
    rows.append((names[index], *values, int(judged.objects[index])))
  header = ("class", *(f"{_COLUMNS[name]} (%)" for name in known), "objects")
  title = f"Average precision of every class ({judged.rule})"
  return tables.Table.of(title, header, rows)


def sampled(curve: Curve) -> Float[np.ndarray, 101]:
  """Precision at recall 0, .01, ... 1; 0 where that is not reached."""
  place = np.searchsorted(curve.recall, _GRID)
  return np.append(curve.precision, 0.0)[place]


def _order(values: Float[np.ndarray, " classes"]) -> list[int]:
  """The lowest first; what does not occur (NaN) last."""
  return np.argsort(values, kind="stable").tolist()


def _per_cent(value: float) -> float | None:
  return None if math.isnan(value) else round(100 * float(value), 2)


def _title(judged: Judged, shown: int) -> str:
  occurring = int((judged.objects > 0).sum())
  some = f"; the lowest {shown} of {occurring}" if shown < occurring else ""
  return f"Precision and recall at IoU .5, and AP50 ({judged.rule}){some}"


def _panel(
  ax: axes.Axes,
  title: str,
  line: Float[np.ndarray, 101],
  mean: Float[np.ndarray, 101],
) -> None:
  ax.plot(100 * _GRID, 100 * mean, color=INK, lw=0.8, ls=(0, (4, 3)))
  ax.plot(100 * _GRID, 100 * line, color=COLORS[0], lw=1.4)
  ax.set_title(title, loc="left", fontsize=8, color=INK)
  ax.set(xlim=(0, 100), ylim=(0, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
  ax.tick_params(colors=INK, labelsize=7, length=0)
  ax.grid(color=INK, alpha=0.22, lw=0.6)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(INK)


def _short(name: str) -> str:
  return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
