"""A run of an experiment, from its start or its last checkpoint to its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax import convert, trees, workdir
from kd_jax.data.bank import passes
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.models.backbone import Backbone
from kd_jax.report import metrics
from kd_jax.report.run import summary
from kd_jax.report.run.progress import Progress
from kd_jax.report.trackers import together
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.bucket import checkpoints as bucket_checkpoints
from kd_jax.train.experiment import Experiment
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher import artifact as artifact_lib
from kd_jax.transfer.plan import variables_of
from kd_jax.types import Artifact, TrainState, Variables


def fit(
  experiment: Experiment, where: Path, *, brief: bool = False
) -> TrainState:
  """Trains, or goes on, in the folder `where`.

  It ends with checkpoints/, metrics.jsonl and TensorBoard files, and what the
  method and the data left to say: artifact.npz, records.txt, phases.json.

  Args:
    experiment: what is run.
    where: its folder.
    brief: one of many runs, of which people are told less.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """
  _write_records(experiment.inputs.source, where)
  _write_phases(experiment.stretches, where)
  with _checkpoints(experiment, where) as checkpoints:
    artifact, line = artifact_lib.fitted(
      experiment.method, experiment.specs, experiment.fit
    )
    if line:
      summary.say(line)
    inputs = experiment.inputs.of_bank(
      passes.begun_with(
        experiment.inputs.bank, checkpoints.newest_record(), where
      )
    )
    job = _job(experiment, inputs, artifact)
    state = _start(experiment, job, checkpoints)
    names = experiment.schedule.trackers if jax.process_index() == 0 else ()
    first = int(state.step)
    with together.Trackers(names, where, start_step=first) as others:
      return _train(job, checkpoints, state, where, brief, others)


def host_variables(experiment: Experiment, state: TrainState) -> Variables:
  """The student on the host: its moving average, if there is one."""
  if experiment.mesh.size == 1:
    return jax.tree.map(np.asarray, variables_of(state))
  replicated = mesh_lib.replicated(experiment.mesh)
  gather = jax.jit(lambda tree: tree, out_shardings=replicated)
  return jax.tree.map(np.asarray, gather(variables_of(state)))


def export(experiment: Experiment, variables: Variables, where: Path) -> None:
  """Writes the student to `where/student`, as timm stores it.

  Args:
    experiment: whose it is.
    variables: its weights, on the host.
    where: the folder of the run.
  """
  student = experiment.student
  assert isinstance(student, Backbone)
  student = prepared(student, experiment.inputs.views)
  convert.save_timm(
    student, variables, where / "student", name=experiment.names.student
  )


def prepared(backbone: Backbone, views: Views) -> Backbone:
  """The backbone, which now says how its images are evaluated."""
  return backbone.clone(
    interpolation=views.interpolation,
    crop_pct=views.crop_pct,
    crop_mode=views.crop_mode,
    input_size=(3, views.image_size, views.image_size),
  )


@contextlib.contextmanager
def _checkpoints(
  experiment: Experiment, where: Path
) -> Iterator[checkpoints_lib.Checkpoints]:
  checkpoints = bucket_checkpoints.opened(
    where / "checkpoints", keep=experiment.schedule.keep
  )
  try:
    yield checkpoints
  finally:
    checkpoints.close()


def _write_records(data: DataSource, where: Path) -> None:
  """Lists the records of a source that was drawn from a larger one."""
  if jax.process_index() == 0 and data.drawn:
    lines = "".join(f"{name}\n" for name in data.ids())
    workdir.write(where / "records.txt", lines)


def _write_phases(found: tuple[phases.Stretch, ...], where: Path) -> None:
  """Tells the report, and whoever reads the metrics, what trained when."""
  if jax.process_index() == 0 and len(found) > 1:
    steps = {each.phase.name: (each.start, each.stop) for each in found}
    workdir.write(where / "phases.json", json.dumps(steps))


def _job(
  experiment: Experiment, inputs: Inputs, artifact: Artifact
) -> loop.Job:
  teaching = experiment.teaching
  frozen: dict[str, Any] = {
    "teacher": teaching.place(experiment.mesh),
    **mesh_lib.place({"artifact": artifact}, experiment.mesh),
  }
  if experiment.rate is not None:
    rate = np.float32(experiment.rate)
    frozen["rate"] = mesh_lib.place(rate, experiment.mesh)
  return loop.Job(
    student=experiment.student,
    source=teaching.source,
    stretches=experiment.stretches,
    settings=experiment.settings,
    optim=experiment.optim,
    frozen=frozen,
    batches=inputs.batches,
    record=lambda step: {
      **inputs.position(step),
      "teacher": teaching.fingerprint,
      **passes.note(inputs.bank),
    },
    evaluate=experiment.evaluate,
    batch_size=experiment.schedule.batch_size,
    log_every=experiment.schedule.log_every,
    eval_every=experiment.schedule.eval_every,
    save_every=experiment.schedule.save_every,
    save_last=experiment.schedule.save_last,
    programs=experiment.programs,
  )


def _start(
  experiment: Experiment, job: loop.Job, saved: checkpoints_lib.Checkpoints
) -> TrainState:
  """The newest checkpoint; without one fresh weights, or `initial`."""
  key, init_key = jax.random.split(jax.random.key(experiment.schedule.seed))
  params, stats = experiment.fresh(init_key)
  for stretch in job.stretches:
    phases.check_trainable(stretch.phase, params)
    job.transform(stretch)  # refuses what does not fit its length
  if saved.steps():
    like = job.new_state(params, stats, key)
    found = loop.restore(job, saved, like)
    if found is not None:
      summary.say(f"continuing after step {int(found.step)}")
      return found
  if experiment.initial:
    params, stats = load_weights(experiment.initial, params, stats)
  return job.new_state(params, stats, key)


def load_weights(
  weights: Variables, params: Variables, stats: Variables
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Replaces the student's backbone by `weights`.

  The classifier stays as it is: weights come from another task.
  """
  student = trees.merge(params["student"], weights["params"])
  batch_stats = trees.merge(stats["student"], weights.get("batch_stats", {}))
  return {**params, "student": student}, {**stats, "student": batch_stats}


def _train(
  job: loop.Job,
  checkpoints: checkpoints_lib.Checkpoints,
  state: TrainState,
  where: Path,
  brief: bool,
  others: together.Trackers,
) -> TrainState:
  first, active = int(state.step), jax.process_index() == 0
  progress = Progress(
    job.total_steps,
    start_step=first,
    label=where.name,
    active=active,
    brief=brief,
  )
  with metrics.Writer(
    where, start_step=first, active=active, others=others.write
  ) as writer:
    try:
      return loop.Run(job, checkpoints, writer, progress).fit(state)
    finally:
      progress.close()


def last_figures(where: Path) -> Mapping[str, float]:
  """The last value of every metric that a run has written."""
  last: dict[str, float] = {}
  for line in metrics.read(where):
    last |= line
  return last
