"""One page that shows how a run went: `workdir/report.html`.

It is made of what the run left behind: metrics.jsonl, summary.json (label ->
value), config.json, phases.json (phase -> first and last step, if there are
several), artifact.npz, whatever PNGs lie in `workdir/pictures` and JSON tables
in `workdir/tables` (see `tables.Table`), each of which may be missing. The page
holds its images and needs neither network nor scripts; curves also lie in
`workdir/plots` as PNG.

Example:
  python -c "from kd_jax.report import page; print(page.write_report('r'))"
"""

from __future__ import annotations

import html
import json
import math
import os
import pathlib
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kd_jax import disk, trees
from kd_jax.align import basis as basis_lib
from kd_jax.buckets import spool
from kd_jax.report import markup, metrics, plots
from kd_jax.report import tables as tables_lib
from kd_jax.report.pictures import sheet as sheet_lib

# Of the pictures; others follow by name.
_FIRST = (
  *("views", "neighbours", "patch_colours", "sizes", "attention"),
  *("map_of_teacher", "map_of_student"),
)
_HALF = ("map_of_teacher", "map_of_student")  # Beside each other.
_WIDE = ("spectrum", "comparison")
_LONG = 30  # Tables of more rows are folded.

Tables = Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]
"""title -> (header, rows)."""


def write_report(
  workdir: str | os.PathLike[str],
  *,
  title: str = "",
  tables: Tables | None = None,
  sections: Mapping[str, str | os.PathLike[str]] | None = None,
) -> pathlib.Path:
  """Writes `workdir/report.html` and the PNGs in `workdir/plots`.

  Args:
    workdir: folder of the run; what it lacks is left out and named.
    title: heading; the name of the folder if empty.
    tables: result tables shown before the curves, title -> (header, rows).
    sections: name -> workdir of further runs, shown below in this order.

  Returns:
    The path of the page.

  Raises:
    ValueError: there is no such folder, or a file in it is damaged.
  """
  root = pathlib.Path(workdir)
  title = title or root.resolve().name
  body = [f"<h1>{html.escape(title)}</h1>"]
  body += [
    markup.headed(name, 2, markup.table(tables_lib.Table.of(name, *table)))
    for name, table in (tables or {}).items()
  ]
  if not sections or (root / metrics.FILE).exists():
    body.append(_run(root, 2))
  else:
    body.append(_left(root, 2))
  for name, folder in (sections or {}).items():
    part = _run(pathlib.Path(folder), 3)
    body.append(f"<section><h2>{html.escape(name)}</h2>{part}</section>")
  if any("<figure" in part for part in body):
    body.insert(1, markup.TAP)
  page = markup.page(title, "".join(body))
  path = root / "report.html"
  disk.write(path, page.encode())
  return path


def _left(root: pathlib.Path, level: int) -> str:
  """The pictures and tables that lie in a folder."""
  parts = [_kept_table(x, level) for x in tables_lib.read(root).values()]
  return "".join([_pictures(root, level), *parts])


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
  parts = [
    markup.headed("Summary", level, _about(summary)) if summary else "",
    _gallery("Curves", level, images, _WIDE),
    _left(root, level),
    markup.headed("Phases", level, _stretches(lines, phases)) if phases else "",
    _warnings(lines),
    markup.headed("Final metrics", level, _final(lines)) if lines else "",
    markup.details("Configuration", _config(config)) if config else "",
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
      f"{spool.address(path)} holds {found}, not a first and a last step per "
      "phase; repair or delete it"
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
    last = tables_lib.digits(totals[-1]) if totals else "-"
    rows.append((name, f"{start:,} to {stop:,}", rate, last))
  header = ("phase", "steps", "images/s (median)", "last loss")
  return markup.table(tables_lib.Table.of("Phases", header, rows))


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


def _pictures(root: pathlib.Path, level: int) -> str:
  """What the run drew while it had images and networks at hand."""
  found = sheet_lib.kept(root)
  first = [name for name in _FIRST if name in found]
  names = [*dict.fromkeys([*first, *found])]
  images = {name: found[name].png for name in names}
  words = {name: found[name].words for name in names}
  wide = [name for name in names if name not in _HALF]
  left_out = [words[name] for name in names if images[name] is None]
  notes = [f"<p class=note>{html.escape(line)}</p>" for line in left_out]
  shown = markup.gallery(images, wide, words) if any(images.values()) else ""
  body = "".join([shown, *notes])
  return markup.headed("Pictures", level, body) if body else ""


def _gallery(
  title: str,
  level: int,
  images: Mapping[str, bytes | None],
  wide: Collection[str],
) -> str:
  """Pictures below a heading; nothing without any."""
  if not any(images.values()):
    return ""
  return markup.headed(title, level, markup.gallery(images, wide))


def _kept_table(table: tables_lib.Table, level: int) -> str:
  """A table below its title, folded if it is long."""
  body = markup.table(table)
  if len(table.rows) > _LONG:
    return markup.details(table.title, body)
  return markup.headed(table.title, level, body)


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
      f"{spool.address(path)} is no valid JSON ({error}); repair or delete it"
    ) from error
  if not isinstance(found, dict):
    raise ValueError(
      f"{spool.address(path)} holds a {type(found).__name__}, not an object "
      "of names and values; repair or delete it"
    )
  return found


def _about(summary: Mapping[str, Any]) -> str:
  return markup.pairs({k.replace("_", " "): v for k, v in summary.items()})


def _config(config: Mapping[str, Any]) -> str:
  flat = trees.flatten(config)
  # Dots, as in the flags that set them.
  return markup.pairs(
    {name.replace("/", "."): flat[name] for name in sorted(flat)}
  )


def _final(lines: plots.Lines) -> str:
  """First and last value of every metric."""
  seen: dict[str, list[tuple[float, int]]] = {}
  for line in lines:
    for name, value in line.items():
      if name != "step":
        seen.setdefault(name, []).append((value, line["step"]))
  rows = [(k, v[0][0], v[-1][0], v[-1][1]) for k, v in seen.items()]
  header = ("metric", "first", "last", "at step")
  return markup.table(tables_lib.Table.of("Final metrics", header, rows))


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
