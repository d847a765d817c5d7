"""The figures of a report, as PNG files that read on light and dark pages.

Figures are objects of their own (no pyplot): nothing global is touched and no
display is needed. Sizes are inches at 96 pixels each on the page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_jax.align import basis as basis_lib

if TYPE_CHECKING:
  from matplotlib import axes, figure, ticker

Lines = Sequence[Mapping[str, Any]]
Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""label -> (steps, values)."""

INK = "#7a7a7a"  # Contrast above 4:1 on white and on near-black.
COLORS = ("#2f7fc1", "#e0812b", "#2f9e77", "#c8478c", "#8f6fd1", "#a8892c")
ACCURACIES = (
  *("knn", "probe", "accuracy", "top1", "top5"),
  *("mean_per_class", "miou"),
)
PRECISIONS = ("ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75")

_SMALL, _WIDE = (4.4, 3.0), (9.0, 3.0)
_DENSE = 30  # Above so many points a line shows no markers.


def series(lines: Lines, wanted: Callable[[str], bool]) -> Series:
  """The metrics whose name is `wanted`; NaN stands for what is not finite."""
  found: dict[str, list[tuple[int, float]]] = {}
  for line in lines:
    for name, value in line.items():
      if name != "step" and wanted(name):
        point = (line["step"], value if math.isfinite(value) else math.nan)
        found.setdefault(name, []).append(point)
  return {k: (np.array(v).T[0], np.array(v).T[1]) for k, v in found.items()}


def loss(lines: Lines, ends: Sequence[int] = ()) -> bytes | None:
  """The terms 'loss/<term>' against step; log scale if all are positive.

  Args:
    lines: of metrics.jsonl.
    ends: steps at which a phase ends and another begins, drawn as lines.
  """
  found = series(lines, lambda name: name.startswith("loss/"))
  found = {name.removeprefix("loss/"): xy for name, xy in found.items()}
  return _curves(found, "Loss terms", "loss", log_from=1.0, ends=ends)


def accuracy(lines: Lines) -> bytes | None:
  """Accuracies 'eval/...' in per cent against step, last values labelled."""
  found = series(lines, _is_accuracy)
  found = {
    f"{name.removeprefix('eval/')} {100 * y[-1]:.1f} %": (x, 100 * y)
    for name, (x, y) in found.items()
  }
  return _curves(found, "Accuracy on held-out images", "accuracy (%)")


def feature_error(lines: Lines, ends: Sequence[int] = ()) -> bytes | None:
  """'eval/<what>_error', relative errors of the student's features.

  Args:
    lines: of metrics.jsonl.
    ends: steps at which a phase ends and another begins, drawn as lines.
  """
  found = series(lines, _is_error)
  names = {name: name.removeprefix("eval/")[: -len("_error")] for name in found}
  if len(names) == 1:
    names = dict.fromkeys(names, "last")
  found = {f"{names[k]} {y[-1]:.4g}": (x, y) for k, (x, y) in found.items()}
  title = "Relative feature error  ‖s − t‖² / ‖t‖²"
  return _curves(found, title, "relative error", log_from=20.0, ends=ends)


def throughput(lines: Lines) -> bytes | None:
  """'images_per_s' against step, from 0."""
  found = series(lines, lambda name: name == "images_per_s")
  found = {
    f"median {np.nanmedian(y):,.0f} images/s": (x, y)
    for x, y in found.values()
    if np.isfinite(y).any()
  }
  return _curves(found, "Throughput", "images/s", bottom=0.0)


def overlaid(
  found: Series, name: str, *, log_from: float = math.inf
) -> bytes | None:
  """One metric of several runs.

  Args:
    found: run -> steps and values.
    name: of the metric.
    log_from: ratio of the largest to the smallest from which on the scale is
      logarithmic, if all are positive.
  """
  return _curves(found, name, name.rpartition("/")[2], log_from=log_from)


def spectrum(basis: basis_lib.Basis, width: int | None) -> bytes:
  """Singular values and explained share of the teacher's features.

  Args:
    basis: fitted to the teacher's features.
    width: number of directions kept, marked in both panels; None if unknown.
  """
  from matplotlib import ticker

  values = basis.singular_values
  index = np.arange(1, len(values) + 1)
  energy = np.cumsum(np.square(values))
  fig, (left, right) = _figure(_WIDE, columns=2)
  left.plot(index, values, color=COLORS[0], lw=1.4)
  left.set_yscale("log")
  left.yaxis.set_minor_locator(ticker.NullLocator())
  # Rounding noise below the numerical rank would squeeze the rest.
  left.set_ylim(bottom=max(values[-1], values[0] * 1e-7) / 1.5)
  _decorate(left, "Spectrum of the teacher", "direction", "singular value")
  right.plot(index, 100 * energy / energy[-1], color=COLORS[2], lw=1.4)
  title = "Explained share of the variance"
  if width is not None:
    kept = min(width, len(values))
    share = basis_lib.explained(basis, kept)
    title = f"{kept:,} of {len(values):,} directions keep {100 * share:.1f} %"
    for ax in (left, right):
      ax.axvline(kept, color=COLORS[1], lw=1.2, ls=(0, (4, 3)))
      ax.axvspan(index[0], kept, color=COLORS[1], alpha=0.08, lw=0)
    right.plot([kept], [100 * share], "o", color=COLORS[1], ms=5)
  right.set_ylim(0, 104)
  _decorate(right, title, "direction", "explained share (%)")
  return png(fig)


def _is_error(name: str) -> bool:
  return name.startswith("eval/") and name.endswith("_error")


def _is_accuracy(name: str) -> bool:
  known = any(word in name for word in ACCURACIES)
  known = known or name.removeprefix("eval/") in PRECISIONS
  return known and name.startswith("eval/")


def _curves(
  found: Series,
  title: str,
  ylabel: str,
  *,
  log_from: float = math.inf,
  bottom: float | None = None,
  ends: Sequence[int] = (),
) -> bytes | None:
  """One panel of lines; log scale if positive and max / min >= log_from."""
  finite = [y[np.isfinite(y)] for _, y in found.values()]
  values = np.concatenate([*finite, np.zeros(0)])
  if not len(values):
    return None
  fig, (ax,) = _figure(_SMALL)
  for index, (label, (x, y)) in enumerate(found.items()):
    color = INK if label == "total" else COLORS[index % len(COLORS)]
    style = {"marker": "o", "ms": 3} if len(x) <= _DENSE else {}
    ax.plot(x, y, color=color, lw=1.4, label=label, **style)
    ax.plot(x[-1:], y[-1:], "o", color=color, ms=4.5)
  for end in ends:
    ax.axvline(end, color=INK, lw=0.8, ls=(0, (3, 3)), alpha=0.6)
  if values.min() > 0 and values.max() / values.min() >= log_from:
    _log(ax, values.max() / values.min())
  else:
    ax.yaxis.set_major_formatter(_plain)
  ax.set_ylim(bottom=bottom)
  ax.set_xlim(left=0)
  rows = _legend(ax, list(found))
  _decorate(ax, title, "step", ylabel, pad=6 + 12 * rows)
  return png(fig)


def _figure(
  size: tuple[float, float], columns: int = 1, *, sharey: bool = False
) -> tuple[figure.Figure, list[axes.Axes]]:
  from matplotlib import figure

  fig = figure.Figure(figsize=size, layout="constrained")
  grid = fig.subplots(1, columns, squeeze=False, sharey=sharey)
  return fig, list(grid[0])


def _legend(ax: axes.Axes, labels: Sequence[str]) -> int:
  """Puts a legend between title and panel; returns its rows."""
  per_row = max(1, min(len(labels), 52 // (max(map(len, labels)) + 6)))
  ax.legend(
    loc="lower left",
    bbox_to_anchor=(-0.02, 0.98),
    ncols=per_row,
    frameon=False,
    fontsize=8,
    labelcolor=INK,
    handlelength=1.2,
    columnspacing=1.2,
    borderaxespad=0.2,
    labelspacing=0.3,
  )
  return math.ceil(len(labels) / per_row)


def _log(ax: axes.Axes, ratio: float) -> None:
  from matplotlib import ticker

  ax.set_yscale("log")
  decades = math.log10(ratio)
  if decades < 0.7:
    locator: ticker.Locator = ticker.MaxNLocator(5)
  else:
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    locator = ticker.LogLocator(subs=subs, numticks=8)
  ax.yaxis.set_major_locator(locator)
  ax.yaxis.set_minor_locator(ticker.NullLocator())
  ax.yaxis.set_major_formatter(_plain)


def _plain(value: float, place: float | None) -> str:
  del place
  return f"{value:,.6g}"


def _decorate(
  ax: axes.Axes, title: str, xlabel: str, ylabel: str, *, pad: float = 8
) -> None:
  from matplotlib import ticker

  ax.set_title(
    title, loc="left", fontsize=10, color=INK, pad=pad, weight="bold"
  )
  ax.set_xlabel(xlabel, fontsize=9, color=INK)
  ax.set_ylabel(ylabel, fontsize=9, color=INK)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
  ax.tick_params(colors=INK, labelsize=8, length=0)
  ax.grid(color=INK, alpha=0.22, lw=0.6)
  ax.set_axisbelow(True)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(INK)


def png(fig: figure.Figure) -> bytes:
  """The figure as a PNG file on a transparent ground."""
  buffer = io.BytesIO()
  fig.savefig(buffer, format="png", dpi=192, transparent=True)
  return buffer.getvalue()
