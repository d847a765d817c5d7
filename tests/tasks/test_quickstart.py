"""The quickstart's story in few steps, and what it writes about it."""

import base64
import contextlib
import io
import json
import re

import numpy as np
import pytest

import runs
from benchmarks import quickstart_features
from kd_jax import config as config_lib
from kd_jax import main
from kd_jax.report import metrics
from kd_jax.tasks import quickstart

TITLES = ("none (from scratch)", "KDEP from the teacher", "supervised")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  """(workdir, what it printed)."""
  workdir = tmp_path_factory.mktemp("quickstart")
  spec = f"{runs.ROOT}/configs/quickstart.py:smoke"
  arguments = ["--config", spec, "--workdir", str(workdir)]
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main.main(arguments) == 0
  return workdir, printed.getvalue()


@pytest.mark.parametrize(
  ("field", "message"),
  [
    ("seeds=()", r"config.seeds is \(\); it must be whole numbers"),
    ("seeds=('a',)", "config.seeds is .*'a'"),
    ("order=('kdep',)", "must begin with 'teacher'"),
    ("order=('teacher','kdeep')", "name only .*'kdep'"),
  ],
)
def test_stories_that_cannot_be_told(field, message, tmp_path):
  spec = f"{runs.ROOT}/configs/quickstart.py:smoke"
  config = config_lib.load(spec, [field])
  with pytest.raises(ValueError, match=message):
    quickstart.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_whole_story_is_told(story):
  workdir, text = story
  for title in TITLES:
    (line,) = [t for t in text.splitlines() if t.startswith(title)]
    assert "±" in line and "(2 seeds)" in line
  page = (workdir / "report.html").read_text()
  assert "KDEP from the teacher" in page and page.count("<section>") == 3
  teacher, student = (
    json.loads((workdir / run / "summary.json").read_text())
    for run in ("teacher", "kdep")
  )
  assert teacher["student_width"] == student["teacher_width"] == 128
  assert student["student_width"] == 48


@pytest.mark.slow
def test_results_are_complete_and_paired(story):
  workdir, text = story
  found = json.loads((workdir / "results.json").read_text())
  assert found["seeds"] == [0, 1] and found["labels_per_seed"] == 25
  assert set(found["seconds"]) == {"scratch", "teacher", "kdep", "supervised"}
  assert 0 < sum(found["seconds"].values()) < found["total_seconds"]
  rows = found["rows"]
  assert [row["title"] for row in rows.values()] == list(TITLES)
  scratch = np.array(rows["scratch"]["accuracy"])
  assert ((scratch > 0) & (scratch < 1)).all()
  for kind, row in rows.items():
    gain = np.array(row["accuracy"]) - scratch
    np.testing.assert_allclose(row["difference"], gain)
    assert row["difference_mean"] == pytest.approx(gain.mean())
    error = gain.std(ddof=1) / np.sqrt(2)
    assert row["difference_error"] == pytest.approx(error)
    assert row["std"] == pytest.approx(np.std(row["accuracy"], ddof=1))
    if kind != "scratch":
      assert f"{100 * gain.mean():+.1f} ± {100 * error:.1f}" in text


def test_one_seed_has_no_spread():
  accuracy = {"scratch": [0.5], "kdep": [0.75]}
  titles = {"scratch": ("none", "no"), "kdep": ("KDEP", "no")}
  found = quickstart.summed_up(accuracy, titles)
  row = found["kdep"]
  assert row["difference"] == [0.25] and row["difference_error"] is None
  assert json.loads(json.dumps(found)) == found


@pytest.mark.slow
def test_classifiers_are_judged_on_their_own_digits(story):
  workdir, _ = story
  for run in ("teacher", "supervised"):
    config = json.loads((workdir / run / "config.json").read_text())
    assert config["eval"]["judge"]["classes"] == config["data"]["classes"]
    assert 0 <= metrics.read(workdir / run)[-1]["eval/accuracy"] <= 1
  assert "eval/accuracy" not in metrics.read(workdir / "kdep")[-1]


@pytest.mark.slow
def test_pages_show_the_runs_pictures(story):
  workdir, _ = story
  page = (workdir / "report.html").read_text()
  for run in ("teacher", "kdep", "supervised"):
    own = (workdir / run / "report.html").read_text()
    for name in ("views", "neighbours"):
      png = (workdir / run / "pictures" / f"{name}.png").read_bytes()
      text = base64.b64encode(png).decode()
      assert text in own and text in page


@pytest.mark.slow
def test_linear_classifiers_of_frozen_features(story, capsys):
  workdir, _ = story
  arguments = ["--workdir", str(workdir), "--seeds", "3"]
  quickstart_features.main(arguments)
  lines = capsys.readouterr().out.splitlines()[1:]
  found = {
    line[:20].strip(): [float(x) for x in re.findall(r"[-+]?[\d.]+", line[20:])]
    for line in lines
  }
  widths = {name: row[0] for name, row in found.items()}
  assert widths == {
    "raw pixels": 256,
    "teacher": 128,
    "student of KDEP": 48,
    "student, untrained": 48,
  }
  assert found["raw pixels"][1] > 80  # the task needs no pre-training
  for name, (_, mean, _, *difference) in found.items():
    wanted = mean - found["raw pixels"][1]
    if name != "raw pixels":
      assert difference[0] == pytest.approx(wanted, abs=0.11)
