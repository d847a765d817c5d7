"""What a finished transfer leaves for others, and what a suite asks of it."""

import json
import threading
import types

import pytest

from kd_jax.running import suite, transfer
from kd_jax.transfer.protocol import Protocol


def trained(plan, trial, where, finish):
  """Instead of training: files that say whose they are, and a figure."""
  for folder in ("student", "heads"):
    (where / folder).mkdir(parents=True)
    (where / folder / "config.json").write_text(f"{folder} of {trial.name}")
  figures = {"miou": trial.rate - trial.seed / 100}
  return transfer.Finished(trial, figures, figures, 1.0)


@pytest.mark.parametrize(
  ("fields", "kept"),
  [
    ({"rates": (0.1, 0.3), "seeds": (3, 4)}, "final_lr0.3_seed3"),
    ({"rates": (0.1, 0.3), "select": "best_test"}, "final_lr0.3_seed0"),
    ({"seeds": (2, 1)}, "final_lr0.2_seed2"),
  ],
)
def test_the_network_of_the_first_seed_lies_in_the_workdir(
  tmp_path, monkeypatch, fields, kept
):
  monkeypatch.setattr(transfer, "_run", trained)
  protocol = Protocol(**fields)
  plan = types.SimpleNamespace(
    protocol=protocol,
    rates=protocol.rates or (0.2,),
    judge=types.SimpleNamespace(figure="miou"),
    experiment=types.SimpleNamespace(
      programs={}, schedule=types.SimpleNamespace(trackers=())
    ),
  )
  found = transfer.run(plan, tmp_path, lambda variables, folder: None)
  assert found.runs[0].trial.name == kept
  for folder in ("student", "heads"):
    text = (tmp_path / folder / "config.json").read_text()
    assert text == f"{folder} of {kept}"


def segmented(where):
  where.mkdir()
  found = {"figure": "miou", "figures": {"miou": [0.3, 0.5], "other": [1, 1]}}
  (where / "results.json").write_text(json.dumps(found))


def classified(where):
  where.mkdir()
  line = json.dumps({"step": 3, "eval/accuracy": 0.4})
  (where / "metrics.jsonl").write_text(line + "\n")


@pytest.mark.parametrize(
  ("job", "figure"), [(segmented, "miou"), (classified, "accuracy")]
)
def test_a_teacher_has_to_reach_a_figure(tmp_path, capsys, job, figure):
  where = tmp_path / "good"
  found, _ = suite.played({"teacher": (job, where)}, {"teacher": 0.39})
  assert found["teacher"][0] == where
  assert f"teacher: {figure} 40.0 %" in capsys.readouterr().err
  jobs = {"teacher": (job, tmp_path / "bad")}
  with pytest.raises(ValueError, match=f"{figure} 40.0 %.*than the 41 % asked"):
    suite.played(jobs, {"teacher": 0.41})


def test_a_run_waits_for_what_it_needs_and_for_nothing_else(tmp_path):
  both = threading.Barrier(2, timeout=20)  # fails unless they meet
  ended = []

  def job(name, *, meets=False):
    def run(folder):
      assert folder == tmp_path / name
      if meets:
        both.wait()
      ended.append(name)

    return run, tmp_path / name

  jobs = {
    "teacher": job("teacher", meets=True),
    "plain": job("plain", meets=True),
    "taught": job("taught"),
  }
  found, _ = suite.played(jobs, {}, {"taught": ["teacher"]}, at_once=2)
  assert list(found) == ["teacher", "plain", "taught"]
  assert ended.index("taught") > ended.index("teacher")


def test_what_a_failed_run_was_to_teach_does_not_begin(tmp_path):
  begun = []

  def fails(folder):
    raise ValueError("no such photograph")

  jobs = {"teacher": (fails, tmp_path), "taught": (begun.append, tmp_path)}
  with pytest.raises(ValueError, match="no such photograph"):
    suite.played(jobs, {}, {"taught": ["teacher"]}, at_once=2)
  assert not begun
