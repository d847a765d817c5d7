"""What a network gets right and wrong, class by class.

Everything is made of a confusion matrix (rows are the truth, see
`transfer.confusion`) and the classes' names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from kd_jax.report import plots, tables
from kd_jax.report.plots import COLORS, INK
from kd_jax.transfer import confusion

if TYPE_CHECKING:
  from matplotlib import axes

_WRITTEN = 20  # Above so many classes cells hold no numbers.
_NAME = 18  # Letters of a name that are shown.
_ROW, _LEAST, _MOST = 0.086, 3.6, 13.0  # Inches.
_PER_PANEL = 50  # Bars below each other.


@dataclasses.dataclass(frozen=True)
class Judged:
  """A confusion matrix with what its classes are called and judged by.

  Attributes:
    matrix: counts, rows are the truth.
    names: of the classes; numbers stand in for those that are missing.
    iou: whether classes are judged by intersection over union; otherwise by
      the share of their samples that was found.
  """

  matrix: confusion.Matrix
  names: tuple[str, ...] = ()
  iou: bool = False

  @property
  def figure(self) -> str:
    """What `values` are: 'IoU' or 'accuracy'."""
    return "IoU" if self.iou else "accuracy"

  @property
  def values(self) -> Float[np.ndarray, " classes"]:
    """Of every class, in [0, 1]; NaN for what does not occur."""
    matrix = np.asarray(self.matrix)
    measure = confusion.iou if self.iou else confusion.class_accuracy
    said = matrix.sum(0) if self.iou else 0
    return np.where(matrix.sum(1) + said > 0, measure(matrix), np.nan)

  def name(self, index: int) -> str:
    """Of a class, in full."""
    return self.names[index] if index < len(self.names) else str(index)

  def worst(self, count: int) -> list[int]:
    """The classes of the lowest values, the lowest first."""
    order = np.argsort(self.values, kind="stable")
    seen = order[np.isfinite(self.values[order])]
    return seen[:count].tolist()


def worst_table(judged: Judged, count: int = 20) -> tables.Table:
  """The classes of the lowest values: name, figure, samples, taken for what."""
  rows = [_row(judged, index) for index in judged.worst(count)]
  samples = "pixels" if judged.iou else "samples"
  header = ("class", f"{judged.figure} (%)", samples, "most often taken for")
  title = f"Classes of the lowest {judged.figure}"
  return tables.Table.of(title, header, rows)


def matrix(judged: Judged, title: str = "Confusion of classes") -> bytes:
  """A PNG: the share of every row's samples that went to each column.

  Right ones are green, wrong ones orange, and stronger than their share, for a
  few per cent matter. Names stand where they fit: beside every row up to 150
  classes, and below every n-th column.
  """
  counts = np.asarray(judged.matrix, np.float64)
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  classes = len(share)
  height = min(max(_ROW * classes, _LEAST), _MOST)
  from matplotlib import figure

  fig = figure.Figure(figsize=(9.0, height + 1.4), layout="constrained")
  ax = fig.subplots()
  ax.imshow(_painted(share), interpolation="nearest", aspect="auto")
  _named(ax, judged, height)
  if classes <= _WRITTEN:
    _written(ax, share)
  words = f"{title}: % of a row's {'pixels' if judged.iou else 'samples'}"
  ax.set_title(words, loc="left", fontsize=10, color=INK, weight="bold")
  ax.set_xlabel("predicted", fontsize=9, color=INK)
  ax.set_ylabel("truth", fontsize=9, color=INK)
  return plots.png(fig)


def bars(judged: Judged) -> bytes:
  """A PNG: the figure of every class as a bar, the highest first."""
  from matplotlib import figure

  values = judged.values
  order = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable").tolist()
  panels = math.ceil(len(order) / _PER_PANEL)
  rows = math.ceil(len(order) / panels)
  size = (9.0, 0.9 + 0.17 * rows)
  fig = figure.Figure(figsize=size, layout="constrained")
  grid = fig.subplots(1, panels, squeeze=False, sharex=True)[0]
  mean = float(np.nanmean(values))
  for number, ax in enumerate(grid):
    _panel(ax, judged, order[number * rows : (number + 1) * rows], rows, mean)
  rest = " of those that occur" if np.isnan(values).any() else ""
  fig.suptitle(
    f"{judged.figure} of every class; mean{rest} {100 * mean:.1f} %",
    fontsize=10,
    color=INK,
    weight="bold",
  )
  return plots.png(fig)


def _row(judged: Judged, index: int) -> tuple[str, float, int, str | None]:
  counts = np.asarray(judged.matrix)[index]
  wrong = np.where(np.arange(len(counts)) == index, 0, counts)
  other = int(wrong.argmax())
  taken = None
  if wrong[other]:
    share = 100 * wrong[other] / counts.sum()
    taken = f"{judged.name(other)}, {share:.1f} % ({wrong[other]:,})"
  value = round(100 * float(judged.values[index]), 2)
  return judged.name(index), value, int(counts.sum()), taken


def _painted(
  share: Float[np.ndarray, "classes classes"],
) -> Float[np.ndarray, "classes classes 4"]:
  """Colours on a transparent ground."""
  right = np.eye(len(share), dtype=bool)[..., None]
  from matplotlib import colors

  good, bad = (np.array(colors.to_rgb(COLORS[i])) for i in (2, 1))
  strength = np.where(right[..., 0], share, np.sqrt(share))
  return np.concatenate(
    [np.where(right, good, bad), 0.9 * strength[..., None]], -1
  )


def _written(
  ax: axes.Axes, share: Float[np.ndarray, "classes classes"]
) -> None:
  """Per cent in every cell that has any."""
  size = 9 if len(share) <= 12 else 7
  for (row, column), value in np.ndenumerate(share):
    strong = row == column and value >= 0.4
    words = f"{100 * value:.0f}" if value >= 0.005 else ""
    ax.text(
      column,
      row,
      words,
      ha="center",
      va="center",
      fontsize=size,
      color="white" if strong else INK,
    )


def _named(ax: axes.Axes, judged: Judged, height: float) -> None:
  """Names beside rows and below columns, as many as have room."""
  classes = len(judged.matrix)
  names = [_short(judged.name(i)) for i in range(classes)]
  every = math.ceil(classes * _ROW / height)
  ax.set_yticks(range(0, classes, every), names[::every])
  every = math.ceil(classes * _ROW / 7.4)
  ax.set_xticks(range(0, classes, every), names[::every], rotation=90)
  size = 8 if classes <= 40 else 6
  ax.tick_params(colors=INK, labelsize=size, length=0)
  for spine in ax.spines.values():
    spine.set_color(INK)


def _panel(
  ax: axes.Axes,
  judged: Judged,
  order: Sequence[int],
  rows: int,
  mean: float,
) -> None:
  values = 100 * np.nan_to_num(judged.values[order])
  ax.barh(range(len(order)), values, color=COLORS[0], height=0.7)
  ax.axvline(100 * mean, color=COLORS[1], lw=1.0, ls=(0, (4, 3)))
  for row, (index, value) in enumerate(zip(order, values, strict=True)):
    absent = np.isnan(judged.values[index])
    words = "absent" if absent else f"{value:.1f}"
    ax.text(value + 1, row, words, va="center", fontsize=7, color=INK)
  ax.set_yticks(range(len(order)), [_short(judged.name(i)) for i in order])
  ax.set_ylim(rows - 0.4, -0.6)
  ax.set_xlim(0, 108)
  ax.set_xlabel(f"{judged.figure} (%)", fontsize=8, color=INK)
  ax.tick_params(colors=INK, labelsize=7, length=0)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "left")
    spine.set_color(INK)


def _short(name: str) -> str:
  return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
