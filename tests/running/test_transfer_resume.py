"""Transfers that are killed anywhere end in the very bits of quiet ones."""

import concurrent.futures
import json
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import runs
from kd_jax.running import results

FIELDS = (
  *("transfer.rates=(0.02,0.05)", "transfer.seeds=(0,1)"),
  *("checkpoint.every=1", "eval.every=3"),
)
TASKS = ("classify", "detect")
HOW = {"config": runs.TRANSFER}


def trials(where, kind=""):
  return sorted((where / "trials").glob(f"{kind}*"))


def finished(where, kind=""):
  return [t for t in trials(where, kind) if (t / "result.json").exists()]


def unfinished(where, kind=""):
  return [t for t in trials(where, kind) if not (t / "result.json").exists()]


def in_the_search(where):
  return any(runs.lines(trial) >= 2 for trial in trials(where, "search"))


def in_a_checkpoint(where):
  return any(
    runs.checkpoints(trial) and runs.unfinished(trial)
    for trial in trials(where)
  )


def between_runs(where):
  return len(finished(where)) == 1


def in_a_run_that_counts(where):
  return any(runs.lines(trial) >= 3 for trial in unfinished(where, "final"))


def at_the_end_of_a_run(where):
  """Its last weights are saved, and what it leaves is being written."""
  return any(6 in runs.checkpoints(t) for t in unfinished(where, "final"))


# In an order in which each is still to come after those before it.
MOMENTS = (in_the_search, in_a_checkpoint, between_runs, at_the_end_of_a_run)


def killed(where, variant):
  """Kills runs, each a random moment later than named."""
  rng = np.random.default_rng(TASKS.index(variant))
  # Tasks share what saves and goes on.
  for moment in MOMENTS if variant == "classify" else (in_a_run_that_counts,):
    delay = 0 if moment is in_a_checkpoint else rng.uniform(0, 0.05)

    def now(folder, moment=moment, delay=delay):
      if not moment(folder):
        return False
      time.sleep(delay)
      return True

    runs.kill(now, where, *FIELDS, variant=variant, **HOW)
  before = len(finished(where))
  assert before < 4 and not (where / results.FILE).exists()
  return runs.complete(where, *FIELDS, variant=variant, **HOW)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
  """{task: (quiet folder, killed folder)}."""
  folder = tmp_path_factory.mktemp("resume")
  found = {
    task: (folder / f"{task}_quiet", folder / f"{task}_killed")
    for task in TASKS
  }
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    waiting = [pool.submit(killed, found[task][1], task) for task in TASKS]
    for task in TASKS:
      runs.here(found[task][0], *FIELDS, variant=task, **HOW)
    for each in waiting:
      each.result()
  return found


def told(where):
  found = json.loads((where / results.FILE).read_text())
  found.pop("seconds")
  return found


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_kills_change_no_bit(ended, task):
  quiet, again = ended[task]
  assert told(again) == told(quiet)
  assert [t.name for t in trials(again)] == [t.name for t in trials(quiet)]
  assert len(finished(again)) == 4
  files = sorted(
    path.relative_to(quiet) for path in quiet.rglob("*.safetensors")
  )
  assert len(files) == {"classify": 3, "detect": 6}[task]  # and a copy
  for path in files:
    want = safetensors_numpy.load_file(quiet / path)
    got = safetensors_numpy.load_file(again / path)
    assert set(got) == set(want) and len(want) > 5
    for name, array in want.items():
      np.testing.assert_array_equal(got[name], array, err_msg=name)
  for trial in trials(again):
    assert not (trial / "checkpoints").exists()
  assert (again / "report.html").stat().st_size > 10_000
