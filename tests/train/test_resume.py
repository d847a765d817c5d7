"""Killed, stopped and damaged runs end in the very bits of a quiet one."""

import concurrent.futures
import os
import shutil
import signal

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import runs
from kd_jax.report import metrics

STEPS = 12


class Story:
  """Runs that need each other, played in order.

  What is killed, stopped or compiled afresh are processes; the rest runs here.
  """

  def __init__(self, folder):
    self.folder = folder
    teacher = runs.save_teacher(folder / "teacher")
    self.fields = (f"teacher.weights={teacher}",)

  def quiet(self):
    where = self.folder / "quiet"
    return runs.here(where, *self.fields)

  def stopped(self):
    where = self.folder / "stopped"
    enough = lambda w: runs.lines(w) >= 2  # noqa: E731
    first = runs.interrupt(enough, signal.SIGTERM, where, *self.fields)
    return first, runs.checkpoints(where)

  def resumed(self):
    return runs.here(self.folder / "stopped", *self.fields)

  def damaged(self):
    where = self.folder / "damaged"
    shutil.copytree(self.folder / "quiet", where)
    newest = where / "checkpoints" / str(STEPS) / "state"
    largest = max(newest.rglob("*"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    return runs.here(where, *self.fields)

  def from_weights(self):
    where = self.folder / "from_weights"
    source = f"init_from={self.folder / 'quiet'}"
    return runs.here(where, *self.fields, source, "optim.lr=0.0")

  def fresh(self):
    where = self.folder / "fresh"
    return runs.complete(where, *self.fields, JAX_ENABLE_COMPILATION_CACHE="0")

  def average(self):
    return runs.here(self.folder / "average", *self.fields, variant="ema")

  def killed(self):
    """Three times, at the worst moments, with a moving average."""
    where, seen = self.folder / "killed", []
    moments = (
      lambda w: runs.lines(w) >= 2,
      lambda w: runs.checkpoints(w) and runs.unfinished(w),
      lambda w: len(runs.checkpoints(w)) >= 2,
    )
    for moment in moments:
      runs.kill(moment, where, *self.fields, variant="ema")
      seen.append((runs.checkpoints(where), len(runs.unfinished(where))))
    return seen

  def revived(self):
    return runs.here(self.folder / "killed", *self.fields, variant="ema")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  folder = tmp_path_factory.mktemp("resume")
  told = Story(folder)

  def play(*names):
    return {name: getattr(told, name)() for name in names}

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    processes = pool.submit(play, "killed", "stopped", "fresh")
    found = play("quiet", "average", "damaged", "from_weights")
    found |= processes.result()
  return folder, found | play("resumed", "revived")


def student(where):
  return safetensors_numpy.load_file(where / "student" / "model.safetensors")


def assert_same_run(ours, theirs):
  """Weights, optimizer, moving average, basis and every logged number."""
  for read in (lambda w: runs.state(w, STEPS), student, basis):
    want, got = read(theirs), read(ours)
    assert set(want) == set(got)
    for name, array in want.items():
      assert np.array_equal(got[name], array), name
  assert numbers(ours) == numbers(theirs)


def basis(where):
  with np.load(where / "artifact.npz") as file:
    return {k: file[k] for k in file.files}


def numbers(where):
  drop = ("images_per_s",)
  return [
    {k: v for k, v in line.items() if k not in drop}
    for line in metrics.read(where)
  ]


def test_a_quiet_run_logs_every_step_once_and_learns(story):
  folder, _ = story
  found = numbers(folder / "quiet")
  steps = [line["step"] for line in found if "loss/feature" in line]
  assert steps == list(range(1, STEPS + 1))
  assert [line["step"] for line in found if "loss/feature" not in line] == [12]
  assert found[-2]["loss/feature"] < 0.99 * found[0]["loss/feature"]
  kept = runs.state(folder / "quiet", STEPS)
  assert int(kept["['step']"]) == STEPS
  assert runs.checkpoints(folder / "quiet") == [9, 12]


def test_compiled_afresh_gives_the_bits_of_the_cache(story):
  folder, _ = story
  assert_same_run(folder / "fresh", folder / "quiet")


def test_three_kills_change_no_bit(story):
  folder, found = story
  early, saving, saved = found["killed"]
  assert early[0] == [] and saving[0] and saving[1] and len(saved[0]) >= 2
  assert_same_run(folder / "killed", folder / "average")
  ema = runs.state(folder / "average", STEPS)
  name = "['student']['stage4']['block0']['conv1']['kernel']"
  assert not np.array_equal(ema[f"['ema']{name}"], ema[f"['params']{name}"])
  assert not runs.unfinished(folder / "killed")


def test_sigterm_saves_says_so_and_resumes_to_the_same_bits(story):
  folder, found = story
  (status, error), saved = found["stopped"]
  assert status == 0
  said = [line for line in error.splitlines() if "stopped after step" in line]
  assert len(said) == 1 and "Traceback" not in error
  step = int(said[0].split()[3])
  assert 2 <= step < STEPS and step in saved
  assert f"continuing after step {step}" in found["resumed"]
  assert_same_run(folder / "stopped", folder / "quiet")


def test_a_damaged_checkpoint_is_named_and_passed_over(story):
  folder, found = story
  assert "checkpoint 12 is damaged" in found["damaged"]
  assert "continuing after step 9" in found["damaged"]
  assert (folder / "damaged" / "checkpoints" / "damaged-12").is_dir()
  assert_same_run(folder / "damaged", folder / "quiet")


def test_init_from_takes_weights_only_and_starts_at_step_0(story):
  folder, found = story
  assert "continuing" not in found["from_weights"]
  logged = numbers(folder / "from_weights")
  assert [line["step"] for line in logged][:2] == [1, 2]
  before = numbers(folder / "quiet")
  assert logged[0]["loss/feature"] != before[0]["loss/feature"]
  given, kept = student(folder / "quiet"), student(folder / "from_weights")
  weights = [n for n in given if not n.split(".")[-1].startswith("running")]
  for name in weights:  # The learning rate was zero.
    assert np.array_equal(given[name], kept[name]), name
  assert len(weights) > 20
