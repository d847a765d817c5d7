"""Every cell of the comparison has a source, and every source a date."""

import re

import runs
from kd_jax import models

PAGE = (runs.ROOT / "docs" / "compare.md").read_text()
COMPARED, SOURCES = PAGE.split("## Sources")
OWN = {"kd_jax": "K", "LightlyTrain": "L", "timm": "T", "torchdistill": "D"}


def rows(text):
  lines = [x for x in text.splitlines() if x.startswith("| ")]
  return [[x.strip() for x in line.strip("|").split("|")] for line in lines]


def test_every_cell_names_sources_of_its_own_tool_and_each_has_a_date():
  dates = {row[0]: row[2] for row in rows(SOURCES)[1:]}
  head, *body = rows(COMPARED)
  assert head[1:] == list(OWN) and len(body) >= 12
  used = set()
  for point, *cells in body:
    assert len(cells) == len(OWN), point
    for cell, letter in zip(cells, OWN.values(), strict=True):
      named = re.findall(rf"{letter}\d", " ".join(re.findall(r"\[.+?\]", cell)))
      assert named, (point, cell)
      used.update(named)
  assert used == set(dates)
  for name, date in dates.items():
    dated = re.search(r"[A-Z][a-z]+ \d+, 2026$", date)
    assert dated or (name[0] == "K" and date == "this checkout"), name


def test_models_are_counted_today():
  assert PAGE.count(f"{len(models.list_models())} models") == 2
