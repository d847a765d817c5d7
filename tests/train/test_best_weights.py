"""Phases that end with their best weights, and resuming in and between them."""

import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn
from loop_case import running

from kd_jax import losses
from kd_jax.report import metrics
from kd_jax.teachers import none
from kd_jax.train import loop
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases as phases_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.phases import Stretch
from kd_jax.types import Batch, Needs, Phase

STEPS = 8
# What the evaluations say; 'body' ends after step 4 and is best after step 3.
EVERY = {1: 0.8, 2: 0.7, 3: 0.5, 4: 0.6, 5: 0.95, 6: 0.9, 7: 0.85, 8: 0.8}


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, *, train, **_):
    x = nn.Conv(4, (3, 3), name="stage1")(x)
    norm = nn.BatchNorm(use_running_average=not train, name="norm")
    return {"logits": nn.Dense(3, name="head")(norm(x).mean((1, 2)))}


def classify(variables, taps, teacher, batch):
  return {"ce": losses.cross_entropy(taps["logits"], batch.label)}, {}


def phases(**changes):
  shared = {"losses": classify, "needs": Needs(), "steps_frac": 0.5}
  shared = {**shared, "judge": "value", **changes}
  return (
    Phase("body", trainable=("student/stage1", "student/norm"), **shared),
    Phase("head", trainable=("student/head",), train_from="", **shared),
  )


def batches(start, phase):
  def stream():
    for step in range(start, STEPS + 1):
      rng = np.random.default_rng(step)
      image = rng.integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
      label = rng.integers(0, 3, 8).astype(np.int32)
      yield Batch(image=image, label=label, mask=np.ones(8, np.float32))

  return stream()


def new_job(values, **changes):
  seen = []

  def evaluate(state, frozen):
    seen.append(jax.tree.map(np.array, (state.params, state.stats)))
    return {"eval/value": values[int(state.step)]}

  stretches = [
    Stretch(p, 4 * i, 4 * i + 4) for i, p in enumerate(phases(**changes))
  ]
  job = loop.Job(
    student=Net(),
    source=none.Source(),
    stretches=tuple(stretches),
    settings=step_lib.Settings(
      weights={"ce": 1.0}, mesh=mesh_lib.make_mesh(jax.devices()[:1])
    ),
    optim=Optim(lr=0.5),
    frozen={"artifact": {}},
    batches=batches,
    record=lambda step: {"records": 8 * step},
    evaluate=evaluate,
    batch_size=8,
    log_every=1,
    eval_every=1,
    save_every=1,
  )
  return job, seen


def fresh_state(job):
  found = Net().init(jax.random.key(0), np.zeros((1, 6, 6, 3)), train=False)
  stats = {"student": found["batch_stats"], "method": {}}
  params = {"student": found["params"]}
  return job.new_state(params, stats, jax.random.key(1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  job, seen = new_job(EVERY)
  with running(job, folder) as (run, _):
    state = run.fit(fresh_state(job))
  return folder, jax.tree.map(np.asarray, state), seen


def assert_same(got, want):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert np.array_equal(a, b)


def test_a_phase_ends_with_its_best_weights_and_statistics(whole):
  folder, state, seen = whole
  # Evaluations: after 1, 2, 3, 4, of what is handed on, after 5, 6, 7, 8.
  assert len(seen) == 9
  assert_same(seen[4], seen[2])  # that of step 3 was best
  with pytest.raises(AssertionError):
    assert_same(seen[4], seen[3])
  # The head goes on from there, and the body stays as it is.
  for part in ("stage1", "norm"):
    assert_same(seen[-1][0]["student"][part], seen[2][0]["student"][part])
  assert_same(state.stats, seen[2][1])
  # The last evaluation of 'head' was its best.
  assert_same((state.params, state.stats), seen[-1])
  assert state.best == {}
  lines = [x["eval/value"] for x in metrics.read(folder) if "eval/value" in x]
  assert lines == [0.8, 0.7, 0.5, 0.6, 0.6, 0.95, 0.9, 0.85, 0.8]


def test_a_phase_without_a_judge_ends_with_its_last_weights(tmp_path):
  job, seen = new_job(EVERY, judge="")
  with running(job, tmp_path) as (run, _):
    state = run.fit(fresh_state(job))
  assert len(seen) == STEPS
  for part in ("stage1", "norm"):
    assert_same(state.params["student"][part], seen[3][0]["student"][part])


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_after_any_step_gives_the_same_bits(whole, step, tmp_path):
  folder, want, seen = whole
  shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
  for later in range(step + 1, STEPS + 1):
    shutil.rmtree(tmp_path / "checkpoints" / str(later))
  job, again = new_job(EVERY)
  with running(job, tmp_path) as (run, checkpoints):
    state = loop.restore(job, checkpoints, fresh_state(job))
    assert int(state.step) == step
    # Half-way through, the best so far is part of what was saved.
    assert bool(state.best) == (step % 4 != 0)
    if state.best:
      lowest = min(v for k, v in EVERY.items() if step // 4 * 4 < k <= step)
      assert float(state.best["value"]) == np.float32(lowest)
    state = run.fit(state)
  assert_same(state, want)
  assert_same(again, seen[len(seen) - len(again) :])


def test_a_judge_that_is_not_finite_stops_the_run(tmp_path):
  job, _ = new_job({1: 0.1, 2: float("nan")})
  message = "eval/value is nan in phase 'body'.*optim.lr"
  with (
    running(job, tmp_path) as (run, _),
    pytest.raises(ValueError, match=message),
  ):
    run.fit(fresh_state(job))


def test_phases_may_change_the_optimizer():
  job, _ = new_job({}, optim=(("clip_norm", 1e-3), ("lr", 2.0)))
  tx = job.transform(job.stretches[0])
  params = {"a": np.zeros(1, np.float32)}
  grads = {"a": np.full(1, 7.0, np.float32)}
  updates, _ = tx.update(grads, tx.init(params), params)
  assert float(updates["a"][0]) == pytest.approx(-2e-3)


def test_warm_up_is_a_share_of_each_phase():
  optim = Optim(lr=1.0, schedule="cosine", warmup_frac=0.1)
  for steps in (20, 200):
    rate, plain = optim.rate(steps), Optim(lr=1.0, schedule="cosine")
    assert float(rate(steps // 20)) == pytest.approx(0.5)
    assert float(rate(steps // 10)) == pytest.approx(1.0)
    assert float(rate(steps)) == pytest.approx(0.0, abs=1e-6)
  # A phase that is too short for it has none.
  assert float(optim.rate(4)(1)) == float(plain.rate(4)(1))
  with pytest.raises(ValueError, match="warmup_frac is 0.1 and warmup=3"):
    Optim(warmup_frac=0.1, warmup=3)
  with pytest.raises(ValueError, match="warmup_frac is 1.0"):
    Optim(warmup_frac=1.0)


@pytest.mark.parametrize(
  ("online", "ema", "message"),
  [(False, 0.0, "hand_over=last"), (True, 0.9, "ema_decay=0, not 0.9")],
)
def test_what_cannot_be_judged_or_frozen_is_refused(online, ema, message):
  job, _ = new_job({})
  phases_lib.check_phases(job.stretches, online=True, ema_decay=0.0)
  with pytest.raises(ValueError, match=message):
    phases_lib.check_phases(job.stretches, online=online, ema_decay=ema)
