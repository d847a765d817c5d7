"""The loop: resuming at every step of two phases, signals, bad numbers."""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from flax import linen as nn
from loop_case import running

from kd_jax import losses
from kd_jax.teachers import none
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import loop, signals
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.phases import Stretch
from kd_jax.types import Batch, Needs, Phase

STEPS = 6


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, *, train, **_):
    x = nn.tanh(nn.Conv(4, (3, 3), name="stage1")(x)).mean((1, 2))
    return {"logits": nn.Dense(3, name="head")(x)}


def classify(variables, taps, teacher, batch):
  return {"ce": losses.cross_entropy(taps["logits"], batch.label)}, {}


def phases():
  shared = {"losses": classify, "needs": Needs(), "steps_frac": 0.5}
  return (
    Phase("body", trainable=("student/stage1",), **shared),
    Phase("head", trainable=("student/head",), **shared),
  )


def batches(start, phase):
  del phase

  def stream():
    for step in range(start, STEPS + 1):
      rng = np.random.default_rng(step)
      image = rng.integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
      label = rng.integers(0, 3, 8).astype(np.int32)
      yield Batch(image=image, label=label, mask=np.ones(8, np.float32))

  return stream()


def new_job(**changes):
  stretches = [Stretch(p, 3 * i, 3 * i + 3) for i, p in enumerate(phases())]
  fields = {
    "student": Net(),
    "source": none.Source(),
    "stretches": tuple(stretches),
    "settings": step_lib.Settings(
      weights={"ce": 1.0}, ema_decay=0.5, mesh=mesh_lib.make_mesh()
    ),
    "optim": Optim(lr=0.5, schedule="cosine"),
    "frozen": {"artifact": {}},
    "batches": batches,
    "record": lambda step: {"records": 8 * step},
    "evaluate": lambda state, frozen: {"eval/one": 1.0},
    "batch_size": 8,
    "log_every": 1,
    "eval_every": 0,
    "save_every": 1,
  }
  return loop.Job(**{**fields, **changes})


def fresh_state(job):
  params = Net().init(jax.random.key(0), np.zeros((1, 6, 6, 3)), train=False)
  stats = {"student": {}, "method": {}}
  return job.new_state({"student": params["params"]}, stats, jax.random.key(1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  job = new_job()
  with running(job, folder) as (run, _):
    state = run.fit(fresh_state(job))
  return folder, jax.tree.map(np.asarray, state)


def test_only_the_phase_s_parameters_move(whole):
  folder, state = whole
  before = fresh_state(new_job()).params["student"]
  after = state.params["student"]
  for part in ("stage1", "head"):
    assert not np.array_equal(before[part]["kernel"], after[part]["kernel"])
  middle = checkpoints_lib.Checkpoints(folder / "checkpoints", keep=STEPS)
  job = new_job()
  found = loop.restore(job, middle, fresh_state(job))
  middle.close()
  assert int(found.step) == STEPS
  sizes = {x.shape for x in jax.tree.leaves(found.opt)}
  assert (4, 3) in sizes and (3, 3, 3, 4) not in sizes


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_resuming_after_any_step_gives_the_same_bits(whole, step, tmp_path):
  folder, want = whole
  shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
  for later in range(step + 1, STEPS + 1):
    shutil.rmtree(tmp_path / "checkpoints" / str(later))
  job = new_job()
  with running(job, tmp_path) as (run, checkpoints):
    state = loop.restore(job, checkpoints, fresh_state(job))
    assert int(state.step) == step
    state = run.fit(state)
  for got, expected in zip(
    jax.tree.leaves(state), jax.tree.leaves(want), strict=True
  ):
    assert np.array_equal(got, expected)


def test_a_checkpoint_of_other_data_is_refused(whole):
  folder, _ = whole
  job = new_job(record=lambda step: {"records": 9 * step})
  checkpoints = checkpoints_lib.Checkpoints(folder / "checkpoints", keep=STEPS)
  with pytest.raises(
    checkpoints_lib.MismatchError, match=r"\['records'\] was \[48\], is \[54\]"
  ):
    loop.restore(job, checkpoints, fresh_state(job))
  checkpoints.close()


@pytest.fixture
def heard():
  """Signals do something, whatever the shell has switched off for the tests."""
  found = {
    n: signal.signal(n, signal.default_int_handler) for n in signals.STOP
  }
  yield
  for number, handler in found.items():
    signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.STOP)
@pytest.mark.usefixtures("heard")
def test_a_signal_stops_in_order_and_handlers_come_back(number, tmp_path):
  before = [signal.getsignal(n) for n in signals.STOP]

  def evaluate(state, frozen):
    os.kill(os.getpid(), number)
    return {"eval/one": 1.0}

  job = new_job(evaluate=evaluate, eval_every=2, save_every=0)
  with (
    running(job, tmp_path) as (run, checkpoints),
    pytest.raises(signals.Stopped, match="stopped after step 3 of 6 and saved"),
  ):
    run.fit(fresh_state(job))
  assert (tmp_path / "checkpoints" / "3").is_dir()
  assert [signal.getsignal(n) for n in signals.STOP] == before


def test_a_diverged_run_stops_before_it_saves(tmp_path):
  job = new_job(optim=Optim(lr=float("inf")), save_every=2, log_every=0)
  with (
    running(job, tmp_path) as (run, checkpoints),
    pytest.raises(ValueError, match="'ce' is nan at step 2.*optim.lr"),
  ):
    run.fit(fresh_state(job))
  assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_phases_that_keep_the_optimizer_share_its_schedule():
  three = [
    Phase(str(i), classify, Needs(), fresh_opt=fresh)
    for i, fresh in enumerate((True, False, True))
  ]
  parts = [Stretch(p, 10 * i, 10 * i + 10) for i, p in enumerate(three)]
  asked = []

  class Recorder:
    def transform(self, steps):
      asked.append(steps)

  fields = {f.name: None for f in dataclasses.fields(loop.Job)}
  job = loop.Job(**{**fields, "stretches": tuple(parts), "optim": Recorder()})
  for part in parts:
    job.transform(part)
  assert asked == [20, 20, 10]
