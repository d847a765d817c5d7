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
  """Runs that need each other, each played once, when it is first asked for.

  What is killed, stopped or compiled afresh are processes; the rest runs here.
  """

  def __init__(self, folder):
    self.folder = folder
    teacher = runs.save_teacher(folder / "teacher")
    self.fields = (f"teacher.weights={teacher}",)
    self._told = {}

  def __getitem__(self, name):
    """What was said during a run."""
    if name not in self._told:
      self._told[name] = getattr(self, name)()
    return self._told[name]

  def ended(self, *names):
    """The folders of runs."""
    for name in names:
      assert self[name] is not None
    return [self.folder / name for name in names]

  def together(self, processes, *names):
    """Plays runs of either kind at the same time."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      others = pool.submit(lambda: [self[name] for name in processes])
      for name in names:
        assert self[name] is not None
      others.result()

  def quiet(self):
    where = self.folder / "quiet"
    return runs.here(where, *self.fields)

  def stopped(self):
    where = self.folder / "stopped"
    enough = lambda w: runs.lines(w) >= 2  # noqa: E731
    first = runs.interrupt(enough, signal.SIGTERM, where, *self.fields)
    return first, runs.checkpoints(where)

  def resumed(self):
    self["stopped"]
    return runs.here(self.folder / "stopped", *self.fields)

  def damaged(self):
    where = self.folder / "damaged"
    self["quiet"]
    shutil.copytree(self.folder / "quiet", where)
    newest = where / "checkpoints" / str(STEPS) / "state"
    largest = max(newest.rglob("*"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    return runs.here(where, *self.fields)

  def from_weights(self):
    where = self.folder / "from_weights"
    self["quiet"]
    source = f"init_from={self.folder / 'quiet'}"
    return runs.here(where, *self.fields, source, "optim.lr=0.0")

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
    self["killed"]
    return runs.here(self.folder / "killed", *self.fields, variant="ema")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  return Story(tmp_path_factory.mktemp("resume"))


@pytest.fixture
def processes(story):
  """The story, with its processes, while other runs keep this one busy."""
  story.together(("killed", "stopped"), "quiet", "average")
  return story


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
  (quiet,) = story.ended("quiet")
  found = numbers(quiet)
  steps = [line["step"] for line in found if "loss/feature" in line]
  assert steps == list(range(1, STEPS + 1))
  assert [line["step"] for line in found if "loss/feature" not in line] == [12]
  assert found[-2]["loss/feature"] < 0.99 * found[0]["loss/feature"]
  kept = runs.state(quiet, STEPS)
  assert int(kept["['step']"]) == STEPS
  assert runs.checkpoints(quiet) == [9, 12]


@pytest.mark.slow
def test_three_kills_change_no_bit(processes):
  early, saving, saved = processes["killed"]
  assert early[0] == [] and saving[0] and saving[1] and len(saved[0]) >= 2
  processes["revived"]
  killed, average = processes.ended("killed", "average")
  assert_same_run(killed, average)
  ema = runs.state(average, STEPS)
  name = "['student']['stage4']['block0']['conv1']['kernel']"
  assert not np.array_equal(ema[f"['ema']{name}"], ema[f"['params']{name}"])
  assert not runs.unfinished(killed)


@pytest.mark.slow
def test_sigterm_saves_says_so_and_resumes_to_the_same_bits(processes):
  (status, error), saved = processes["stopped"]
  assert status == 0
  said = [line for line in error.splitlines() if "stopped after step" in line]
  assert len(said) == 1 and "Traceback" not in error
  step = int(said[0].split()[3])
  assert 2 <= step < STEPS and step in saved
  assert f"continuing after step {step}" in processes["resumed"]
  assert_same_run(*processes.ended("stopped", "quiet"))


def test_a_damaged_checkpoint_is_named_and_passed_over(story):
  """The quick one of the resumed runs: it goes on after step 9."""
  assert "checkpoint 12 is damaged" in story["damaged"]
  assert "continuing after step 9" in story["damaged"]
  damaged, quiet = story.ended("damaged", "quiet")
  assert (damaged / "checkpoints" / "damaged-12").is_dir()
  assert_same_run(damaged, quiet)


def test_init_from_takes_weights_only_and_starts_at_step_0(story):
  assert "continuing" not in story["from_weights"]
  begun, quiet = story.ended("from_weights", "quiet")
  logged, before = numbers(begun), numbers(quiet)
  assert [line["step"] for line in logged][:2] == [1, 2]
  assert logged[0]["loss/feature"] != before[0]["loss/feature"]
  given, kept = student(quiet), student(begun)
  weights = [n for n in given if not n.split(".")[-1].startswith("running")]
  for name in weights:  # The learning rate was zero.
    assert np.array_equal(given[name], kept[name]), name
  assert len(weights) > 20
