"""Runs side by side: what differs, what came out, one page."""

import html.parser
import json

import pytest

import kd_jax
from kd_jax.report.compared import record, sheet

WORTH = {
  "images": "photos",
  "per_class": 0,
  "figures": {"student": {"knn": [0.5, 0.7]}},
}


def lines(steps, loss, rate):
  speeds = [1.0, *[rate] * (steps - 1)]
  return [
    {"step": i + 1, "loss/total": loss / (i + 1), "images_per_s": speeds[i]}
    for i in range(steps)
  ]


def save(folder, steps, made, *, rate=50.0, worth=None, **fields):
  folder.mkdir(parents=True)
  config = {
    "steps": steps,
    "batch_size": 8,
    "optim": {"lr": 0.1, "name": "sgd"},
    **fields,
  }
  found = lines(made, 6.0, rate)
  found.append({"step": made, "eval/knn": 0.25})
  files = {
    "config.json": config,
    "summary.json": {"student": "resnet18", "images": 40},
    "versions.json": {"jax": "1", "commit": folder.name, "diff": ""},
    "evaluate/results.json": worth or {},
  }
  (folder / "evaluate").mkdir()
  for name, value in files.items():
    (folder / name).write_text(json.dumps(value))
  text = "".join(json.dumps(line) + "\n" for line in found)
  (folder / "metrics.jsonl").write_text(text)
  return folder


@pytest.fixture
def folders(tmp_path):
  first = save(tmp_path / "a", 4, 4, worth=WORTH)
  optim = {"lr": 0.5, "name": "sgd"}
  second = save(tmp_path / "<b>", 9, 3, rate=70.0, optim=optim, seed="")
  return first, second


@pytest.fixture
def found(folders):
  return [record.read(folder, folder.name) for folder in folders]


def rows(table):
  return {row[0]: row[1:] for row in table.rows}


def test_only_fields_that_differ_are_shown(found):
  assert rows(sheet.settings(found)) == {
    "optim.lr": (0.1, 0.5),
    "seed": (None, "''"),
    "steps": (4, 9),
  }
  assert rows(sheet.versions(found)) == {"commit": ("a", "<b>")}
  assert not sheet.settings([found[0], found[0]]).rows


def test_length_and_speed(found):
  facts = rows(sheet.facts(found))
  assert facts["steps"] == ("4", "3 of 9")
  assert facts["images seen"] == (32, 24)
  assert facts["images per second"] == (50.0, 70.0)  # without the compiling
  assert facts["student"] == ("resnet18", "resnet18")
  assert "teacher" not in facts


def test_final_figures(found):
  figures = rows(sheet.figures(found))
  assert figures["loss/total"] == (1.5, 2.0)
  assert figures["eval/knn"] == (0.25, 0.25)
  assert figures["knn, photos"] == ("60.0 %", None)


def test_curves_are_of_all_runs(found, monkeypatch):
  drawn = {}

  def overlaid(series, name, **_):
    drawn[name] = {run: y.tolist() for run, (_, y) in series.items()}

  monkeypatch.setattr(sheet.plots, "overlaid", overlaid)
  sheet.curves(found)
  assert drawn == {
    "loss/total": {"a": [6, 3, 2, 1.5], "<b>": [6, 3, 2]},
    "eval/knn": {"a": [0.25], "<b>": [0.25]},
  }


class _Page(html.parser.HTMLParser):
  """Tags and links of a page."""

  def __init__(self):
    super().__init__()
    self.tags, self.links = [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [v for k, v in attrs if k in ("src", "href")]


def test_the_page_holds_everything(folders, tmp_path, capsys):
  out = tmp_path / "deep" / "page.html"
  assert kd_jax.compare(folders, out) == out
  page = _Page()
  page.feed(out.read_text())
  assert page.tags.count("img") == 2 and "script" not in page.tags
  assert all(link.startswith("data:image/png;base64") for link in page.links)
  assert "&lt;b&gt;" in out.read_text()
  assert "loss/total   1.500   2.000" in capsys.readouterr().err


def test_folders_of_one_name_are_called_by_their_paths(tmp_path):
  runs = [save(tmp_path / x / "mine", 2, 2, seed=x) for x in "pq"]
  text = kd_jax.compare(runs, tmp_path / "page.html").read_text()
  assert f"<th>{runs[0]}</th><th>{runs[1]}</th>" in text
