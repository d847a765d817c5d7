"""The quickstart's story in few steps, and what it writes about it."""

import contextlib
import io
import json

import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import main
from kd_jax.report import metrics

pytestmark = pytest.mark.slow
SPEC = f"{runs.ROOT}/configs/quickstart.py:smoke"
TITLES = (
  "none (from scratch)",
  "supervised, labels of 0-4",
  "logits of the teacher, all digits",
  "KDEP, all digits",
)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  """(workdir, what it printed)."""
  workdir = tmp_path_factory.mktemp("quickstart")
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main.main(["--config", SPEC, "--workdir", str(workdir)]) == 0
  return workdir, printed.getvalue()


def test_the_whole_story_is_told(story):
  workdir, text = story
  for title in TITLES:
    found = [t for t in text.splitlines() if t.startswith(title)]
    # The results, and but for the baseline the differences to it.
    assert len(found) == (1 if title.startswith("none") else 2)
    assert all("±" in line for line in found)
  page = (workdir / "report.html").read_text()
  assert all(title in page for title in TITLES)
  assert page.count("<section>") == 4
  teacher, student = (
    json.loads((workdir / run / "summary.json").read_text())
    for run in ("teacher", "kdep")
  )
  assert teacher["student_width"] == student["teacher_width"] == 128
  assert student["student_width"] == 64


def test_results_are_complete_and_paired(story):
  workdir, text = story
  found = json.loads((workdir / "results.json").read_text())
  assert tuple(found["values"]) == TITLES
  assert list(found["seconds"]) == [
    "teacher",
    "supervised",
    "logits",
    "kdep",
  ]
  (column,) = found["values"][TITLES[0]]
  scratch = np.array(found["values"][TITLES[0]][column])
  assert len(scratch) == 2 and ((scratch > 0) & (scratch < 1)).all()
  for title in TITLES[1:]:
    gain = np.array(found["values"][title][column]) - scratch
    error = gain.std(ddof=1) / np.sqrt(2)
    assert f"{100 * gain.mean():+.2f} ± {100 * error:.2f}" in text


def test_every_row_sees_the_same_images_and_chooses_its_own_rate(story):
  workdir, _ = story
  cells = sorted((workdir / "transfers" / "labels").iterdir())
  assert len(cells) == 4
  for cell in cells:
    trials = sorted(p.name for p in (cell / "trials").iterdir())
    searched = [name for name in trials if name.startswith("search")]
    final = [name for name in trials if name.startswith("final")]
    assert len(searched) == 3 and len(final) == 2
    result = json.loads((cell / "results.json").read_text())
    assert result["rate"] in (0.01, 0.03, 0.1)
    assert result["held_out_images"] == 200 and result["shots"] == 20


def test_classifiers_are_judged_on_their_own_digits(story):
  workdir, _ = story
  for run in ("teacher", "supervised"):
    config = json.loads((workdir / run / "config.json").read_text())
    assert config["eval"]["judge"]["classes"] == config["data"]["classes"]
    assert 0 <= metrics.read(workdir / run)[-1]["eval/accuracy"] <= 1
  assert "eval/accuracy" not in metrics.read(workdir / "kdep")[-1]


def test_new_digits_are_seen_without_labels_or_not_at_all():
  config = config_lib.load(f"{runs.ROOT}/configs/quickstart.py:control")
  upstream = set(config.runs.teacher.data.classes)
  assert upstream == {0, 1, 2, 3, 4} == set(config.runs.kdep04.data.classes)
  for name in ("kdep", "logits"):
    assert not config.runs[name].data.classes  # all digits
  for name in ("kdep", "kdep04", "logits"):
    assert not config.runs[name].data.labels
  assert config.rows[-2:] == ("kdep04", "kdep")
  assert (
    "kdep04" not in config_lib.load(f"{runs.ROOT}/configs/quickstart.py").rows
  )
  column = config.transfers.labels
  assert not upstream & set(column.data.classes)
  assert column.data.classes == column.test.classes
  assert (column.data.split, column.test.split) == ("train", "test")
