"""Pre-trains a student: the job that everything else serves.

config -> data -> teacher -> aligned targets -> train -> checkpoint -> export.
The workdir ends with checkpoints/, student/ (timm weights), metrics.jsonl,
TensorBoard files, artifact.npz, pictures/ and report.html.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from kd_jax import convert, trees, workdir
from kd_jax.build.experiment import experiment as build_experiment
from kd_jax.data.bank import passes
from kd_jax.interfaces import DataSource
from kd_jax.report import metrics, page
from kd_jax.report.pictures import neighbours, training_views
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.run import summary, throughput
from kd_jax.report.run.progress import Progress
from kd_jax.train import artifact as artifact_lib
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.experiment import Experiment
from kd_jax.train.inputs import Inputs
from kd_jax.types import Artifact, TrainState, Variables


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run is worth.

  Attributes:
    student: the network.
    variables: its weights on the host, the moving average if there is one.
    metrics: the last value of every metric.
    workdir: where everything was written.
  """

  student: nn.Module
  variables: Mapping[str, Any]
  metrics: Mapping[str, float]
  workdir: Path


def run(config: ConfigDict, where: str | Path) -> Result | None:
  """Runs or continues the pre-training of `config` in the folder `where`.

  Returns:
    The student, or None after a dry run.

  Raises:
    ValueError: anything in the config that cannot work, before step 0.
    Stopped: SIGTERM; the state is saved.
  """
  where = Path(where)
  with workdir.claimed(where, config.to_dict()):
    experiment = build_experiment(config, where)
    about = summary.about(experiment, where)
    if jax.process_index() == 0:
      summary.show(about, experiment.specs)
      workdir.write(where / "summary.json", json.dumps(about, default=str))
    if config.dry_run:
      summary.say(str(throughput.measure(experiment)))
      return None
    return train(experiment, where)


def train(experiment: Experiment, where: Path) -> Result:
  """Runs or continues an experiment in the folder `where`.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """
  _write_records(experiment.inputs.source, where)
  _write_phases(experiment.stretches, where)
  checkpoints = checkpoints_lib.Checkpoints(
    where / "checkpoints", keep=experiment.schedule.keep
  )
  try:
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
    _draw_views(experiment, where)
    state = _train(job, checkpoints, state, where)
  finally:
    checkpoints.close()
  return _finish(experiment, state, where)


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
  frozen = {"teacher": teaching.variables, "artifact": artifact}
  return loop.Job(
    student=experiment.student,
    source=teaching.source,
    stretches=experiment.stretches,
    settings=experiment.settings,
    optim=experiment.optim,
    frozen=mesh_lib.place(frozen, experiment.mesh),
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
  )


def _start(
  experiment: Experiment, job: loop.Job, saved: checkpoints_lib.Checkpoints
) -> TrainState:
  """The newest checkpoint; without one fresh weights, or `init_from`."""
  key, init_key = jax.random.split(jax.random.key(experiment.schedule.seed))
  params, stats = phases.init_variables(
    experiment.student, experiment.method, init_key, experiment.specs
  )
  for stretch in job.stretches:
    phases.check_trainable(stretch.phase, params)
    job.transform(stretch)  # refuses what does not fit its length
  fresh = job.new_state(params, stats, key)
  found = loop.restore(job, saved, fresh)
  if found is not None:
    summary.say(f"continuing after step {int(found.step)}")
    return found
  if not experiment.initial:
    return fresh
  params, stats = load_weights(experiment.initial, params, stats)
  return job.new_state(params, stats, key)


def load_weights(
  weights: Variables, params: Variables, stats: Variables
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Replaces the student's backbone by `weights`.

  The classifier stays as it is: weights come from another task.
  """
  student = trees.merge(params["student"], weights["params"])
  batch_stats = trees.merge(stats["student"], weights["batch_stats"])
  return {**params, "student": student}, {**stats, "student": batch_stats}


def _train(
  job: loop.Job,
  checkpoints: checkpoints_lib.Checkpoints,
  state: TrainState,
  where: Path,
) -> TrainState:
  first, active = int(state.step), jax.process_index() == 0
  progress = Progress(
    job.total_steps, start_step=first, label=where.name, active=active
  )
  with metrics.Writer(where, start_step=first, active=active) as writer:
    try:
      return loop.Run(job, checkpoints, writer, progress).fit(state)
    finally:
      progress.close()


def _draw_views(experiment: Experiment, where: Path) -> None:
  """Shows the first images as the network will get them."""
  if jax.process_index() or not experiment.pictures.count:
    return
  shown = training_views.collect(
    experiment.inputs.source,
    experiment.inputs.views,
    experiment.settings.view,
    count=experiment.pictures.count,
    seed=experiment.schedule.seed,
    bank=experiment.teaching.bank,
  )
  sheet_lib.keep(where, "views", training_views.draw(shown))


def _draw_neighbours(
  experiment: Experiment, variables: Variables, where: Path
) -> None:
  """Shows what student and teacher, if one runs, find alike."""
  shown, teaching = experiment.pictures, experiment.teaching
  if not shown.count:
    return
  networks = {"student": neighbours.of_student(experiment.student, variables)}
  if teaching.bank is None and "feature" in experiment.specs[1]:
    teacher = neighbours.of_teacher(teaching.source, teaching.variables)
    networks = {"teacher": teacher, **networks}
  png = neighbours.draw(
    shown.queries,
    shown.gallery,
    experiment.inputs.views,
    networks,
    count=shown.count,
  )
  sheet_lib.keep(where, "neighbours", png)


def _finish(experiment: Experiment, state: TrainState, where: Path) -> Result:
  """Exports the student and writes the report."""
  params = state.ema or state.params
  variables = {
    "params": params["student"],
    "batch_stats": state.stats["student"],
  }
  replicated = mesh_lib.replicated(experiment.mesh)
  gather = jax.jit(lambda tree: tree, out_shardings=replicated)
  variables = jax.tree.map(np.asarray, gather(variables))
  last: dict[str, float] = {}
  if jax.process_index() == 0:
    views = experiment.inputs.views
    student = experiment.student.clone(
      interpolation=views.interpolation,
      crop_pct=views.crop_pct,
      crop_mode=views.crop_mode,
      input_size=(3, views.image_size, views.image_size),
    )
    convert.save_timm(
      student, variables, where / "student", name=experiment.names.student
    )
    _draw_neighbours(experiment, variables, where)
    page.write_report(where)
    for line in metrics.read(where):
      last |= line
  return Result(experiment.student, variables, last, where)
