"""Suites: rows, columns, what is not run again, and what is refused."""

import contextlib
import copy
import io
import json
import shutil

import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.running import suite as running
from kd_jax.tasks import suite

TINY = {
  "layers": (1, 1, 1, 1),
  "channels": (4, 4, 6, 8),
  "stem_width": 4,
  "stem_type": "cifar",
}


def tiny():
  """Three rows, two columns on digits of 8 pixels."""
  config = config_lib.load(f"{runs.ROOT}/configs/suite.py")
  digits = config_lib.load(f"{runs.ROOT}/configs/transfer_digits.py:smoke")
  with config.unlocked(), digits.unlocked():
    digits.student.overrides = TINY
    digits.steps, digits.batch_size, digits.log_every = 3, 10, 1
    digits.checkpoint.every, digits.eval.pictures = 0, 0
    digits.preprocess.image_size = 8
    digits.data.split, digits.test.split = "train[:200]", "test[:50]"
    digits.transfer.update({"rates": (), "evals": (), "shots": 2})
    digits.transfer.update({"seeds": (0, 1), "search_seeds": 1})
    more = copy.deepcopy(digits)
    more.transfer.shots = 4
    config.rows = ("scratch", "frozen", "pixels")
    config.students.frozen = {"title": "frozen", "trains": "head"}
    config.students.pixels = {"title": "raw pixels", "pixels": True}
    config.columns = ("two", "four")
    config.transfers = {"two": digits.to_dict(), "four": more.to_dict()}
    config.titles = {"two": "2 labels"}
  return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  where = tmp_path_factory.mktemp("suite")
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    found = suite.run(tiny(), where)
  return where, found, printed.getvalue()


def test_cells_end_in_one_table(done):
  where, found, text = done
  assert list(found["values"]) == ["from scratch", "frozen", "raw pixels"]
  for row, name in (("scratch", "from scratch"), ("frozen", "frozen")):
    for column, title in (("two", "2 labels"), ("four", "four")):
      path = where / "transfers" / column / row / "results.json"
      cell = json.loads(path.read_text())
      values = found["values"][name][f"{title} (top1)"]
      assert cell["figures"]["top1"] == values and len(values) == 2
  gain = np.subtract(
    *(found["values"][row]["four (top1)"] for row in ("frozen", "from scratch"))
  )
  error = gain.std(ddof=1) / 2**0.5
  assert f"{100 * gain.mean():+.2f} ± {100 * error:.2f}" in text
  for name in ("comparison.md", "comparison.csv", "report.html"):
    assert "raw pixels" in (where / name).read_text()
  # A linear classifier of four images of each digit is above chance.
  assert np.mean(found["values"]["raw pixels"]["four (top1)"]) > 0.4


@pytest.mark.slow
def test_detection_is_a_column(tmp_path):
  """A classifier of raw pixels has no cell there."""
  config = tiny()
  boxes = config_lib.load(f"{runs.TRANSFER}:detect", ["transfer.seeds=(0,1)"])
  with config.unlocked():
    config.transfers.boxes = boxes.to_dict()
    config.rows, config.columns = ("scratch", "pixels"), ("boxes",)
  with contextlib.redirect_stdout(io.StringIO()):
    found = suite.run(config, tmp_path)
  assert list(found["values"]) == ["from scratch"]
  where = tmp_path / "transfers" / "boxes" / "scratch"
  cell = json.loads((where / "results.json").read_text())
  values = found["values"]["from scratch"]["boxes (ap)"]
  assert cell["figures"]["ap"] == values and len(values) == 2
  assert (where / "heads" / "model.safetensors").exists()
  assert "boxes (ap)" in (tmp_path / "comparison.md").read_text()


def test_finished_cells_are_not_run_again(done, tmp_path, monkeypatch):
  where, found, _ = done
  copied = tmp_path / "suite"
  shutil.copytree(where, copied)
  shutil.rmtree(copied / "transfers" / "four" / "frozen")
  ran = []
  run = running._run
  monkeypatch.setattr(
    running, "_run", lambda cell, row: ran.append(cell.folder) or run(cell, row)
  )
  with contextlib.redirect_stdout(io.StringIO()):
    again = suite.run(tiny(), copied)
  assert ran == [copied / "transfers" / "four" / "frozen"]
  assert again["values"] == found["values"]


def test_a_teacher_that_has_not_learned_does_not_teach(tmp_path):
  path = tmp_path / "teacher"
  path.mkdir()
  line = {"step": 4, "eval/accuracy": 0.31}
  (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
  jobs = {"teacher": (lambda folder: None, path)}
  with pytest.raises(ValueError, match="accuracy 31.0 % .* less than the 60 %"):
    running.played(jobs, {"teacher": 0.6})
  found, _ = running.played(jobs, {"teacher": 0.3})
  assert found["teacher"][0] == path


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"baseline": "nothing"}, "config.baseline is 'nothing'; it must be one"),
    ({"rows": ("scratch", "kdeep")}, "config.rows names 'kdeep'"),
    (
      {"rows": ("scratch", "left"), "runs": {"kdep": {}}},
      r"the row 'left' starts from the run 'kdep', which config.order leaves",
    ),
    ({"at_once": 0}, "config.at_once is 0; it must be at least 1"),
    ({"columns": ()}, "config.columns is empty: it must name transfers"),
    ({"columns": ("dtdd",)}, "config.columns names 'dtdd'"),
    ({"workdirs": ("/nowhere",)}, "/nowhere is no folder of a run"),
  ],
)
def test_what_does_not_exist_is_refused(fields, message, tmp_path):
  config = tiny()
  with config.unlocked():
    config.students.left = {"title": "left out", "init_from": "kdep"}
    config.update(fields)
  with pytest.raises(ValueError, match=message):
    suite.run(config, tmp_path / "run")
