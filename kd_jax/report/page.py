"""One page that shows how a run went: `workdir/report.html`.

It is made of what the run left behind: metrics.jsonl, summary.json (label ->
value), config.json, phases.json (phase -> first and last step, if there are
several), artifact.npz and the PNGs in `workdir/pictures`, each of which may be
missing. The page holds its images and needs neither network nor scripts; curves
also lie in `workdir/plots` as PNG.

Example:
  python -c "from kd_jax.report import page; print(page.write_report('r'))"
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_jax import disk, trees
from kd_jax.align import basis as basis_lib
from kd_jax.report import metrics, plots, tables
from kd_jax.report.pictures import sheet as sheet_lib

_PICTURES = ("views", "neighbours")
_WIDE = ("spectrum", "comparison", *_PICTURES)

Tables = Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]
"""title -> (header, rows)."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76;
  --line: #8884; --page: #fff; --warn: #b3460f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb;
  --soft: #9aa2ab; --page: #16181b; --warn: #ec8f56; } }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 16px; }
h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 24px 0 8px; }
section { border-top: 1px solid var(--line); margin-top: 40px; }
section > h2 { margin-top: 24px; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 4px 22px 4px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
.plots img { width: 100%; display: block; }
.plots .wide { grid-column: 1 / -1; }
.note { color: var(--soft); font-size: 13px; }
.warn { color: var(--warn); font-size: 14px; }
summary { cursor: pointer; color: var(--soft); margin-top: 24px; }
@media (max-width: 640px) { .plots { grid-template-columns: 1fr; } }
"""


def write_report(
  workdir: str | os.PathLike[str],
  *,
  title: str = "",
  tables: Tables | None = None,
  groups: Mapping[str, Sequence[float]] | None = None,
  baseline: str = "",
  sections: Mapping[str, str | os.PathLike[str]] | None = None,
) -> pathlib.Path:
  """Writes `workdir/report.html` and the PNGs in `workdir/plots`.

  Args:
    workdir: folder of the run; what it lacks is left out and named.
    title: heading; the name of the folder if empty.
    tables: result tables shown before the curves, title -> (header, rows).
    groups: label -> accuracies, one per seed, drawn below the tables.
    baseline: the group that all others are compared with, seed by seed; ''
      is none.
    sections: name -> workdir of further runs, shown below in this order.

  Returns:
    The path of the page.

  Raises:
    ValueError: there is no such folder, or a file in it is damaged.
  """
  root = pathlib.Path(workdir)
  title = title or root.resolve().name
  body = [f"<h1>{html.escape(title)}</h1>"]
  body.append(_results(root, tables or {}, groups or {}, baseline))
  if not sections or (root / metrics.FILE).exists():
    body.append(_run(root, 2))
  for name, folder in (sections or {}).items():
    part = _run(pathlib.Path(folder), 3)
    body.append(f"<section><h2>{html.escape(name)}</h2>{part}</section>")
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
    f"<body><main>{''.join(body)}</main></body></html>\n"
  )
  path = root / "report.html"
  disk.write(path, page.encode())
  return path


def _results(
  root: pathlib.Path,
  tables: Tables,
  groups: Mapping[str, Sequence[float]],
  baseline: str,
) -> str:
  """The results of a task, which come first."""
  parts = [
    _headed(name, 2, _table(name, *table)) for name, table in tables.items()
  ]
  if groups:
    title = next(iter(tables), "Accuracy")
    png = plots.comparison(groups, title, baseline)
    _keep(root, {"comparison": png})
    parts.append(_gallery({"comparison": png}))
  return "".join(parts)


def _run(root: pathlib.Path, level: int) -> str:
  """The parts of one run; headings are <h{level}>."""
  if not root.is_dir():
    raise ValueError(
      f"no run to report on: {root} is no folder; pass the workdir of a run"
    )
  lines = metrics.read(root)
  summary, config = _json(root / "summary.json"), _json(root / "config.json")
  phases = _phases(root)
  images = _images(root, lines, summary, list(phases.values()))
  seen = _pictures(root)
  parts = [
    _headed("Summary", level, _about(summary)) if summary else "",
    _headed("Curves", level, _gallery(images)) if any(images.values()) else "",
    _headed("Pictures", level, _gallery(seen)) if seen else "",
    _headed("Phases", level, _stretches(lines, phases)) if phases else "",
    _warnings(lines),
    _headed("Final metrics", level, _final(lines)) if lines else "",
    _details("Configuration", _config(config)) if config else "",
    _missing(lines, summary, config, images),
  ]
  return "".join(parts)


def _phases(root: pathlib.Path) -> dict[str, tuple[int, int]]:
  """{phase: (steps before it, steps after it)}; {} if there is only one."""
  path = root / "phases.json"
  found = _json(path)
  pairs = [isinstance(x, list) and len(x) == 2 for x in found.values()]
  if not all(pairs):
    raise ValueError(
      f"{path} holds {found}, not a first and a last step per phase; repair or "
      "delete it"
    )
  return {
    name: (int(start), int(stop)) for name, (start, stop) in found.items()
  }


def _stretches(
  lines: plots.Lines, phases: Mapping[str, tuple[int, int]]
) -> str:
  """A row per phase: its steps, throughput and last loss."""
  rows = []
  for name, (start, stop) in phases.items():
    inside = [x for x in lines if start < x["step"] <= stop]
    # The first figure holds the compilation, if there is another.
    rates = [x["images_per_s"] for x in inside if "images_per_s" in x]
    totals = [x["loss/total"] for x in inside if "loss/total" in x]
    rate = f"{statistics.median(rates[1:] or rates):,.0f}" if rates else "-"
    last = tables.digits(totals[-1]) if totals else "-"
    rows.append((name, f"{start:,} to {stop:,}", rate, last))
  header = ("phase", "steps", "images/s (median)", "last loss")
  return _table("Phases", header, rows)


def _images(
  root: pathlib.Path,
  lines: plots.Lines,
  summary: Mapping[str, Any],
  phases: Sequence[tuple[int, int]],
) -> dict[str, bytes | None]:
  """Draws the figures and keeps them in `root/plots`; None where no data."""
  ends = [stop for _, stop in phases[:-1]]
  images = {
    "loss": plots.loss(lines, ends),
    "accuracy": plots.accuracy(lines),
    "feature_error": plots.feature_error(lines, ends),
    "throughput": plots.throughput(lines),
    "spectrum": None,
  }
  artifact = root / "artifact.npz"
  if artifact.exists():
    images["spectrum"] = plots.spectrum(
      basis_lib.load(artifact), _width(root, summary)
    )
  _keep(root, images)
  return images


def _pictures(root: pathlib.Path) -> dict[str, bytes]:
  """What the run drew while it had images and networks at hand."""
  paths = {name: root / sheet_lib.FOLDER / f"{name}.png" for name in _PICTURES}
  return {k: path.read_bytes() for k, path in paths.items() if path.exists()}


def _keep(root: pathlib.Path, images: Mapping[str, bytes | None]) -> None:
  for name, png in images.items():
    if png is not None:
      (root / "plots").mkdir(exist_ok=True)
      disk.write(root / "plots" / f"{name}.png", png)


def _width(root: pathlib.Path, summary: Mapping[str, Any]) -> int | None:
  width = summary.get("student_width")
  if width is None or (isinstance(width, int) and width > 0):
    return width
  raise ValueError(
    f"{root / 'summary.json'} has student_width {width!r}; it must be a "
    "positive whole number, or absent"
  )


def _json(path: pathlib.Path) -> dict[str, Any]:
  if not path.exists():
    return {}
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{path} is no valid JSON ({error}); repair or delete it"
    ) from error
  if not isinstance(found, dict):
    raise ValueError(
      f"{path} holds a {type(found).__name__}, not an object of names and "
      "values; repair or delete it"
    )
  return found


def _headed(title: str, level: int, body: str) -> str:
  return f"<h{level}>{html.escape(title)}</h{level}>{body}"


def _details(title: str, body: str) -> str:
  return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def _about(summary: Mapping[str, Any]) -> str:
  return _pairs({k.replace("_", " "): v for k, v in summary.items()})


def _config(config: Mapping[str, Any]) -> str:
  flat = trees.flatten(config)
  # Dots, as in the flags that set them.
  return _pairs({name.replace("/", "."): flat[name] for name in sorted(flat)})


def _pairs(values: Mapping[str, Any]) -> str:
  rows = "".join(
    f"<tr><th>{html.escape(label)}</th>"
    f"<td>{html.escape(tables.show(value))}</td></tr>"
    for label, value in values.items()
  )
  return f"<table>{rows}</table>"


def _table(
  name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> str:
  table = [list(row) for row in rows]
  for number, row in enumerate(table, 1):
    if len(row) != len(header):
      raise ValueError(
        f"table {name!r} row {number} has {len(row)} cells, its header "
        f"{len(header)}: {list(header)}"
      )
  numeric = [
    all(isinstance(row[i], int | float) for row in table)
    for i in range(len(header))
  ]

  def cells(tag: str, row: Sequence[Any]) -> str:
    found = "".join(
      f"<{tag}{' class=number' if number else ''}>"
      f"{html.escape(_cell(value))}</{tag}>"
      for value, number in zip(row, numeric, strict=True)
    )
    return f"<tr>{found}</tr>"

  body = "".join(cells("td", row) for row in table)
  return f"<table>{cells('th', header)}{body}</table>"


def _cell(value: Any) -> str:
  return (tables.digits if isinstance(value, float) else tables.show)(value)


def _gallery(images: Mapping[str, bytes | None]) -> str:
  def figure(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    wide = " class=wide" if name in _WIDE else ""
    alt = name.replace("_", " ")
    return f'<img{wide} alt="{alt}" src="data:image/png;base64,{data}">'

  shown = (figure(name, png) for name, png in images.items() if png)
  return f"<div class=plots>{''.join(shown)}</div>"


def _final(lines: plots.Lines) -> str:
  """First and last value of every metric."""
  seen: dict[str, list[tuple[float, int]]] = {}
  for line in lines:
    for name, value in line.items():
      if name != "step":
        seen.setdefault(name, []).append((value, line["step"]))
  rows = [(k, v[0][0], v[-1][0], v[-1][1]) for k, v in seen.items()]
  return _table("Final metrics", ("metric", "first", "last", "at step"), rows)


def _warnings(lines: plots.Lines) -> str:
  """Names the first value that is not finite, as curves only have a gap."""
  for line in lines:
    for name, value in line.items():
      if not math.isfinite(value):
        where = html.escape(f"{name} is {value} at step {line['step']}")
        return f"<p class=warn>Not finite: {where}; curves have gaps.</p>"
  return ""


def _missing(
  lines: plots.Lines,
  summary: Mapping[str, Any],
  config: Mapping[str, Any],
  images: Mapping[str, bytes | None],
) -> str:
  absent = [
    *(["metrics.jsonl"] if not lines else []),
    *(["summary.json"] if not summary else []),
    *(["config.json"] if not config else []),
    *(name.replace("_", " ") for name, png in images.items() if png is None),
  ]
  if images["spectrum"] and "student_width" not in summary:
    absent.append("kept width (student_width in summary.json)")
  if not absent:
    return ""
  return f"<p class=note>Not available here: {', '.join(absent)}.</p>"
