"""Transfers and suites in a bucket: folders in folders, and what is deleted."""

import contextlib
import io
import json

import pytest

import runs
import s3_case
from kd_jax import config as config_lib
from kd_jax.buckets import spool, store
from kd_jax.running import suite as running
from kd_jax.tasks import suite

FIELDS = ("transfer.rates=(0.02,0.05)", "checkpoint.every=1", "eval.every=3")
HOW = {"config": runs.TRANSFER, "variant": "classify"}


def told(text):
  found = json.loads(text)
  found.pop("seconds")
  return found


@pytest.mark.slow
def test_a_transfer_that_is_killed_between_its_runs(gate, tmp_path):
  """Once a run counts, and while its checkpoints are deleted."""
  url = "s3://bucket/transfer/run"
  runs.here(tmp_path / "disk", *FIELDS, **HOW)
  moments = s3_case.Moments(
    gate, lambda: runs.start(url, *FIELDS, **HOW, **s3_case.LEASE)
  )
  moments.at("PUT", "/result.json", 1, True)
  moments.at("DELETE", "/checkpoints/", 9, True)
  runs.complete(url, *FIELDS, **HOW, **s3_case.LEASE)
  theirs = (tmp_path / "disk" / "results.json").read_text()
  assert told(store.read(url, "results.json")) == told(theirs)
  found = store.keys(url)
  assert not any("checkpoints/" in key for key in found)
  assert sum(key.endswith("/result.json") for key in found) == 3
  for name in ("report.html", "student/model.safetensors"):
    assert name in found
  files = (p for p in (tmp_path / "disk").rglob("*") if p.is_file())
  here = {p.relative_to(tmp_path / "disk").as_posix() for p in files}
  drop = (".lock", "tfevents")
  assert {x for x in here if not any(d in x for d in drop)} <= {*found}


@pytest.mark.slow
def test_a_suite_in_a_bucket_goes_on(monkeypatch):
  """A run in it, students of that run, and a cell that is repeated."""
  url = "memory://bucket/suite"
  config = config_lib.load(f"{runs.ROOT}/configs/suite.py")
  digits = config_lib.load(f"{runs.ROOT}/configs/transfer_digits.py:smoke")
  teacher = config_lib.load(f"{runs.CONFIG}:labels", ["steps=3"])
  with config.unlocked(), digits.unlocked(), teacher.unlocked():
    network = teacher.student.to_dict()
    del network["overrides"]["num_classes"]
    digits.student = network
    digits.steps, digits.batch_size, digits.log_every = 3, 10, 1
    digits.checkpoint.every, digits.eval.pictures = 0, 0
    digits.preprocess.image_size = 8
    digits.data.split, digits.test.split = "train[:200]", "test[:50]"
    digits.transfer.update({"rates": (), "evals": (), "shots": 2})
    digits.transfer.update({"seeds": (0,), "search_seeds": 1})
    config.runs = {"mine": teacher}
    config.order = ("mine",)
    config.rows = ("scratch", "ours")
    config.students.ours = {"title": "ours", "init_from": "mine"}
    config.columns, config.transfers = ("two",), {"two": digits.to_dict()}

  def play():
    with (
      contextlib.redirect_stdout(io.StringIO()) as said,
      spool.mounted(url) as where,
    ):
      found = suite.run(config, where)
    assert f"report: {url}/report.html" in said.getvalue()
    return found

  first = play()
  cell = f"{url}/transfers/two/ours"
  assert json.loads(store.read(cell, "config.json"))["init_from"] == (
    f"{url}/mine"
  )
  assert "mine/student/model.safetensors" in store.keys(url)
  store.delete(cell, store.keys(cell))
  ran, run = [], running._run
  monkeypatch.setattr(
    running, "_run", lambda cell, row: ran.append(cell.row) or run(cell, row)
  )
  assert play()["values"] == first["values"] and ran == ["ours"]
  assert ".lock" not in {key.rpartition("/")[2] for key in store.keys(url)}
