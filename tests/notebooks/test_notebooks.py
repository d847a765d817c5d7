"""The notebooks are what their sources say, and run."""

import json
import os
import pathlib
import re
import sys
import types
import zipfile
from unittest import mock

import pytest

import runs
from kd_jax.report import metrics

nbformat = pytest.importorskip(
  "nbformat", reason="pip install -r requirements-dev.txt"
)
pytest.importorskip("jupytext", reason="pip install -r requirements-dev.txt")
pytest.importorskip("nbclient", reason="pip install -r requirements-dev.txt")

from notebooks import build  # noqa: E402

FOLDER = runs.ROOT / "notebooks"
NAMES = sorted(build.SOURCES)
LARGEST = 600_000  # bytes
MOST_LINES = 120  # that a cell prints


def kept(name):
  return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def printed(book):
  """All text of a notebook's outputs."""
  outputs = [o for c in book.cells for o in c.get("outputs", [])]
  return "".join(o.get("text", "") for o in outputs)


def test_every_notebook_has_a_source():
  assert sorted(x.stem for x in FOLDER.glob("*.ipynb")) == NAMES
  assert "quickstart" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_what_its_source_says(name):
  """If not: python -m notebooks.build NAME."""
  wanted, found = build.read(name), kept(name)
  nbformat.validate(found)
  assert [(c.cell_type, c.source) for c in found.cells] == [
    (c.cell_type, c.source) for c in wanted.cells
  ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_shows_results(name):
  path, book = FOLDER / f"{name}.ipynb", kept(name)
  assert path.stat().st_size < LARGEST
  outputs = [o for c in book.cells for o in c.get("outputs", [])]
  assert any("image/png" in o.get("data", {}) for o in outputs)
  assert not [o for o in outputs if o.output_type == "error"]
  text = printed(book)
  assert "Traceback" not in text and "Warning" not in text
  assert not re.search(r"/(tmp|home|work|root)/", json.dumps(book.cells))


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_does_not_flood_the_page(name):
  for cell in kept(name).cells:
    text = "".join(o.get("text", "") for o in cell.get("outputs", []))
    assert text.count("\n") <= MOST_LINES


def test_on_colab_the_browser_saves_the_student(tmp_path, monkeypatch):
  (cell,) = (
    c.source
    for c in build.read("quickstart").cells
    if "google.colab" in c.source
  )
  (tmp_path / "run" / "export" / "timm").mkdir(parents=True)
  (tmp_path / "run" / "export" / "timm" / "config.json").write_text("{}")
  files = mock.Mock()
  colab = types.SimpleNamespace(files=files)
  monkeypatch.setitem(sys.modules, "google", types.SimpleNamespace(colab=colab))
  monkeypatch.setitem(sys.modules, "google.colab", colab)
  monkeypatch.chdir(tmp_path)
  exec(cell, {"RUN": tmp_path / "run", "sys": sys, "Path": pathlib.Path})
  ((saved,), _) = files.download.call_args
  with zipfile.ZipFile(saved) as archive:
    assert "config.json" in archive.namelist()


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_runtime_is_detected(platform, monkeypatch, capsys):
  (cell,) = (
    c.source for c in build.read("quickstart").cells if "ON_CPU =" in c.source
  )
  device = types.SimpleNamespace(platform=platform, device_kind="kind of it")
  monkeypatch.setattr("jax.devices", lambda: [device] * 2)
  names = {}
  exec(cell, names)
  assert names["ON_CPU"] == (platform == "cpu")
  assert capsys.readouterr().out == f"2 x {platform} (kind of it)\n"


def rows(book):
  """{word: number} of the lines 'word  0.123' that a notebook prints."""
  line = r"^(\w[\w ,]*?) {2,}(\d+(?:\.\d+)?)"
  found = re.findall(line, printed(book), re.MULTILINE)
  return {word: float(number) for word, number in found}


def test_what_the_quickstart_shows():
  found = rows(kept("quickstart"))
  assert found["chance"] == 0.1
  assert found["teacher"] > 0.5
  assert found["student"] > 1.2 * found["pixels"]
  assert found["student"] > found["untrained student"]


def test_what_the_own_method_shows():
  found = rows(kept("own_method"))
  assert found["teacher"] > found["neighbours"] > 2 * found["chance"]
  assert found["neighbours"] > found["untrained"] + 0.1


def run(name, folder, **shorter):
  """What a notebook prints now.

  Args:
    name: of the notebook.
    folder: where it runs.
    **shorter: {what stands in one place of its source: what is run instead}.
  """
  book = build.read(name)
  for old, new in shorter.items():
    holders = [cell for cell in book.cells if old in cell.source]
    assert len(holders) == 1, old
    holders[0].source = holders[0].source.replace(old, new)
  # The tests' flags make programs that compile fast and compute slowly.
  own = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  with mock.patch.dict(os.environ, own, clear=True):
    build.execute(book, folder)
  return rows(book)


@pytest.mark.slow
def test_quickstart_runs(tmp_path):
  shorter = {
    "range(1200), 2000,": "range(1200), 300,",
    "1797), 700,": "1797), 160,",
    "steps=200": "steps=30",
    '"steps": 160, "batch_size": 256': '"steps": 8, "batch_size": 64',
  }
  found = run("quickstart", tmp_path, **shorter)
  assert found.keys() == rows(kept("quickstart")).keys()
  assert (tmp_path / "student.zip").stat().st_size > 100_000
  assert (tmp_path / "runs" / "mine" / "report.html").is_file()


@pytest.mark.slow
def test_own_method_runs(tmp_path):
  shorter = {"STEPS = 400": "STEPS = 20", "length = 4000": "length = 600"}
  found = run("own_method", tmp_path, **shorter)
  assert found.keys() == rows(kept("own_method")).keys()
  text = (tmp_path / "methods" / "neighbours.py").read_text()
  assert "class Method" in text and "temperature" in text


@pytest.mark.slow
def test_bank_runs(tmp_path):
  shorter = {"= 200, 2000, 64": "= 40, 500, 64"}
  found = run("bank", tmp_path, **shorter)
  assert found["crops stored"] == 3_000
  # What a bank holds once, such as its basis, counts for few crops.
  assert found["bytes per crop"] < found["float32 features"] / 2
  for name in ("from_the_bank", "narrow_one_from_the_bank"):
    losses = [x["loss/feature"] for x in figures(tmp_path / "runs" / name)]
    assert losses[-1] < 0.9 * losses[0]
    assert (tmp_path / "runs" / name / "student").is_dir()


def figures(folder):
  """The steps of a run that have a loss."""
  return [x for x in metrics.read(folder) if "loss/feature" in x]
