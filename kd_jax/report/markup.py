"""Pieces of HTML: headings, tables, pictures that the page holds itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kd_jax.report import tables

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76;
  --line: #8884; --page: #fff; --warn: #b3460f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb;
  --soft: #9aa2ab; --page: #16181b; --warn: #ec8f56; } }
h1, h2, h3, p, summary, figcaption { overflow-wrap: anywhere; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 900px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 16px; }
h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 24px 0 8px; }
section { border-top: 1px solid var(--line); margin-top: 40px; }
section > h2 { margin-top: 24px; }
/* Shadows at the edges behind which there is more of a table. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--page) 40%, transparent) left / 36px 100%
    no-repeat local,
  linear-gradient(to left, var(--page) 40%, transparent) right / 36px 100%
    no-repeat local,
  linear-gradient(to right, var(--line), transparent) left / 12px 100%
    no-repeat scroll,
  linear-gradient(to left, var(--line), transparent) right / 12px 100%
    no-repeat scroll; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 4px 22px 4px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; }
.pairs td { overflow-wrap: anywhere; min-width: 7em; }
.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td.whole { white-space: nowrap; }
.plots { display: grid; gap: 18px;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; height: auto; display: block; }
figure span { display: block; }
figure input { position: absolute; opacity: 0; pointer-events: none; }
.tap { display: none; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
.plots .wide { grid-column: 1 / -1; }
.note { color: var(--soft); font-size: 13px; }
.warn { color: var(--warn); font-size: 14px; }
summary { cursor: pointer; color: var(--soft); margin-top: 24px; }
@media (max-width: 640px) {
  main { padding: 20px 16px 48px; }
  th, td { padding-right: 14px; }
  .plots { grid-template-columns: minmax(0, 1fr); }
  .tap { display: block; }
  figure input:checked + span { overflow-x: auto; }
  figure input:checked + span img { width: 860px; }
  figure input:focus-visible + span { outline: 2px solid; }
}
"""
"""Of the whole page; light or dark as the reader likes."""

TAP = '<p class="note tap">A tap on a picture enlarges it.</p>'
"""Shown where the page is narrow."""


def page(title: str, body: str) -> str:
  """A whole page, which needs neither network nor scripts.

  Args:
    title: of the window.
    body: HTML.
  """
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
    f"<body><main>{body}</main></body></html>\n"
  )


def headed(title: str, level: int, body: str) -> str:
  """A heading, <h1> to <h6>, and what is below it (HTML)."""
  return f"<h{level}>{html.escape(title)}</h{level}>{body}"


def details(title: str, body: str) -> str:
  """HTML that only shows after a click on its title."""
  return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def pairs(values: Mapping[str, Any]) -> str:
  """A table of two columns, a row per label."""
  rows = "".join(
    f"<tr><th>{html.escape(label)}</th>"
    f"<td>{html.escape(tables.show(value))}</td></tr>"
    for label, value in values.items()
  )
  return f"<div class=scroll><table class=pairs>{rows}</table></div>"


def table(given: tables.Table) -> str:
  """A table without its title; columns of numbers are aligned to the right."""
  columns = zip(*given.rows, strict=True)
  kinds = [_kind(column) for column in columns] or [""] * len(given.header)

  def cells(tag: str, row: Sequence[Any]) -> str:
    found = "".join(
      f"<{tag}{kind}>{html.escape(tables.cell(value))}</{tag}>"
      for value, kind in zip(row, kinds, strict=True)
    )
    return f"<tr>{found}</tr>"

  body = "".join(cells("td", row) for row in given.rows)
  head = cells("th", given.header)
  return f"<div class=scroll><table>{head}{body}</table></div>"


def _kind(column: Sequence[Any]) -> str:
  """The class of a column of a table."""
  if all(isinstance(value, int | float) for value in column):
    return " class=number"
  errors = any(isinstance(value, str) and "±" in value for value in column)
  return " class=whole" if errors else ""


def gallery(
  images: Mapping[str, bytes | None],
  wide: Collection[str] = (),
  words: Mapping[str, str] | None = None,
) -> str:
  """PNGs two to a row, those named in `wide` alone; None is left out.

  Args:
    images: name -> PNG.
    wide: names.
    words: name -> what is written below the picture.
  """
  said = words or {}

  def drawn(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    alone = " class=wide" if name in wide else ""
    alt = html.escape(name.replace("_", " "))
    image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    below = html.escape(said.get(name, ""))
    below = below and f"<figcaption>{below}</figcaption>"
    # A tap enlarges it where the page is narrow, without a script.
    shown = f"<label><input type=checkbox><span>{image}</span></label>"
    return f"<figure{alone}>{shown}{below}</figure>"

  shown = (drawn(name, png) for name, png in images.items() if png)
  return f"<div class=plots>{''.join(shown)}</div>"
