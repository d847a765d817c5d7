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

from kd_jax import convert, resolve, trees
from kd_jax.build import (
  artifacts,
  bank_checks,
  checks,
  eval_sets,
  network_facts,
  setup,
)
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.report import (
  metrics,
  neighbours,
  page,
  pictures,
  summary,
  throughput,
  training_views,
)
from kd_jax.report.skipped_images import SkipLog
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import evaluate, loop, phases, workdir
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.types import DataSource, Method, Specs, TrainState


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


@dataclasses.dataclass(frozen=True)
class Parts:
  """The objects that a config stands for, checked against each other."""

  mesh: jax.sharding.Mesh
  data: DataSource
  views: Preprocess
  skips: SkipLog
  student: nn.Module
  method: Method
  taught: setup.Teaching
  specs: tuple[Specs, Specs]
  stretches: tuple[phases.Stretch, ...]
  settings: step_lib.Settings
  optim: Optim
  evaluate: evaluate.Evaluator
  weights: Mapping[str, Any]


def run(config: ConfigDict, where: str | Path) -> Result | None:
  """Runs or continues the pre-training of `config` in the folder `where`.

  Returns:
    The student, or None after a dry run.

  Raises:
    ValueError: anything in the config that cannot work, before step 0.
    Stopped: SIGTERM; the state is saved.
  """
  where = Path(where)
  workdir.claim(where, config.to_dict())
  parts = assemble(config, where)
  about = summary.about(config, parts, where) | _about_phases(parts)
  if jax.process_index() == 0:
    summary.show(about, parts.specs)
    workdir.write(where / "summary.json", json.dumps(about, default=str))
  if config.dry_run:
    summary.say(throughput.measure(config, parts))
    return None
  _write_records(parts.data, where)
  _write_phases(parts.stretches, where)
  checkpoints = checkpoints_lib.Checkpoints(
    where / "checkpoints", keep=config.checkpoint.keep
  )
  try:
    job = _job(config, parts, artifacts.fitted(config, parts, where))
    state = _start(config, parts, job, checkpoints)
    _draw_views(config, parts, where)
    state = _train(job, checkpoints, state, where)
  finally:
    checkpoints.close()
  return _finish(config, parts, state, where)


def assemble(config: ConfigDict, where: Path) -> Parts:
  """Builds what the config names and checks that it fits together.

  Raises:
    ValueError: something does not exist, does not fit or cannot be reached.
  """
  checks.counts(config)
  mesh = mesh_lib.make_mesh()
  mesh_lib.check_batch(config.batch_size, mesh, config.accum_steps)
  optim = resolve.construct(Optim, config.optim.to_dict(), "optim")
  method = setup.method(config)
  student = setup.student(config)
  data = setup.data(config.data)
  taught = setup.teaching(config)
  views = setup.preprocess(config, taught.viewer)
  setup.check_crops(config, views, mesh)
  if taught.bank is not None:
    bank_checks.check(taught.bank, views, data)
    bank_checks.check_mix(config, taught.source.codec)
  specs = _specs(config, student, taught, views)
  method = _bound(method, student, taught, specs, views)
  stretches = _planned(config, method, taught, specs, data)
  skips = SkipLog(where)
  judged = any(stretch.phase.judge for stretch in stretches)
  nets = student, taught.source
  evaluate_it = setup.evaluator(
    config, *nets, method, mesh, views=views, skips=skips, judged=judged
  )
  return Parts(
    mesh=mesh,
    data=data,
    views=views,
    skips=skips,
    student=student,
    method=method,
    taught=taught,
    specs=specs,
    stretches=stretches,
    settings=setup.settings(config, mesh, views, data.num_classes),
    optim=optim,
    evaluate=evaluate_it,
    weights=_initial_weights(config),
  )


def _planned(
  config: ConfigDict,
  method: Method,
  taught: setup.Teaching,
  specs: tuple[Specs, Specs],
  data: DataSource,
) -> tuple[phases.Stretch, ...]:
  """The phases, after a check that they find what they read."""
  found = phases.stretches(method, config.steps)
  for stretch in found:
    phases.check_taps(stretch.phase, *specs, taught.source)
  phases.check_phases(found, taught.bank is None, config.ema_decay)
  phases.check_method(method, specs)
  checks.tap(config, specs[0])
  checks.labels(method, data, specs[0])
  return found


def _bound(
  method: Any,
  student: nn.Module,
  taught: setup.Teaching,
  specs: tuple[Specs, Specs],
  views: Preprocess,
) -> Method:
  """The method that runs: some depend on the networks."""
  bind = getattr(method, "bind", None)
  if bind is None:
    return method
  size = views.image_size
  return bind(network_facts.networks(student, taught.model, specs, size))


def _specs(
  config: ConfigDict,
  student: nn.Module,
  taught: setup.Teaching,
  views: Preprocess,
) -> tuple[Specs, Specs]:
  """Tap shapes of student and teacher."""
  batch = phases.image_batch(config.batch_size, views.image_size, taught.source)
  frozen = {"teacher": taught.variables, "artifact": {}}
  return (
    phases.student_specs(student, batch),
    phases.teacher_specs(taught.source, frozen, batch),
  )


def _write_records(data: DataSource, where: Path) -> None:
  """Lists the records of a source that was drawn from a larger one."""
  if jax.process_index() == 0 and getattr(data, "drawn", False):
    lines = "".join(f"{name}\n" for name in data.ids())
    workdir.write(where / "records.txt", lines)


def _about_phases(parts: Parts) -> dict[str, str]:
  """How the steps are shared out, if there are several phases."""
  found = [f"{s.phase.name} {s.stop - s.start}" for s in parts.stretches]
  return {"steps_per_phase": ", ".join(found)} if len(found) > 1 else {}


def _write_phases(found: tuple[phases.Stretch, ...], where: Path) -> None:
  """Tells the report, and whoever reads the metrics, what trained when."""
  if jax.process_index() == 0 and len(found) > 1:
    steps = {each.phase.name: (each.start, each.stop) for each in found}
    workdir.write(where / "phases.json", json.dumps(steps))


def _job(
  config: ConfigDict,
  parts: Parts,
  artifact: Mapping[str, np.ndarray],
) -> loop.Job:
  frozen = {"teacher": parts.taught.variables, "artifact": artifact}
  images = config.batch_size // parts.views.num_crops
  return loop.Job(
    student=parts.student,
    source=parts.taught.source,
    stretches=parts.stretches,
    settings=parts.settings,
    optim=parts.optim,
    frozen=mesh_lib.place(frozen, parts.mesh),
    batches=lambda step, phase: setup.train_stream(
      config,
      parts.data,
      parts.views,
      step,
      phase=phase,
      on_skip=parts.skips.report(parts.data),
      bank=parts.taught.bank,
    ),
    record=lambda step: {
      **pipeline.position(step, images, source=parts.data, seed=config.seed),
      "teacher": parts.taught.fingerprint,
    },
    evaluate=parts.evaluate,
    batch_size=config.batch_size,
    log_every=config.log_every,
    eval_every=config.eval.every,
    save_every=config.checkpoint.every,
  )


def _start(
  config: ConfigDict,
  parts: Parts,
  job: loop.Job,
  saved: checkpoints_lib.Checkpoints,
) -> TrainState:
  """The newest checkpoint; without one fresh weights, or `init_from`."""
  key, init_key = jax.random.split(jax.random.key(config.seed))
  params, stats = phases.init_variables(
    parts.student, parts.method, init_key, parts.specs
  )
  for stretch in job.stretches:
    phases.check_trainable(stretch.phase, params)
    job.transform(stretch)  # refuses what does not fit its length
  fresh = job.new_state(params, stats, key)
  found = loop.restore(job, saved, fresh)
  if found is not None:
    summary.say(f"continuing after step {int(found.step)}")
    return found
  if not parts.weights:
    return fresh
  params, stats = load_weights(parts.weights, params, stats)
  return job.new_state(params, stats, key)


def load_weights(
  weights: Mapping[str, Any], params: Any, stats: Any
) -> tuple[Any, Any]:
  """Replaces the student's backbone by `weights`.

  The classifier stays as it is: weights come from another task.
  """
  student = trees.merge(params["student"], weights["params"])
  batch_stats = trees.merge(stats["student"], weights["batch_stats"])
  return {**params, "student": student}, {**stats, "student": batch_stats}


def _initial_weights(config: ConfigDict) -> Mapping[str, Any]:
  if not config.init_from:
    return {}
  source = Path(config.init_from) / "student"
  overrides = {**setup.model_fields(config.student.overrides), "num_classes": 0}
  return convert.load_pretrained(
    config.student.name,
    source if source.is_dir() else config.init_from,
    **overrides,
  )[1]


def _train(
  job: loop.Job,
  checkpoints: checkpoints_lib.Checkpoints,
  state: TrainState,
  where: Path,
) -> TrainState:
  first, active = int(state.step), jax.process_index() == 0
  progress = metrics.Progress(
    job.total_steps, start_step=first, label=where.name, active=active
  )
  with metrics.Writer(where, start_step=first, active=active) as writer:
    try:
      return loop.Run(job, checkpoints, writer, progress).fit(state)
    finally:
      progress.close()


def _draw_views(config: ConfigDict, parts: Parts, where: Path) -> None:
  """Shows the first images as the network will get them."""
  if jax.process_index() or not config.eval.pictures:
    return
  shown = training_views.collect(
    parts.data,
    parts.views,
    parts.settings.view,
    count=config.eval.pictures,
    seed=config.seed,
    bank=parts.taught.bank,
  )
  pictures.keep(where, "views", training_views.draw(shown))


def _draw_neighbours(
  config: ConfigDict, parts: Parts, variables: Mapping[str, Any], where: Path
) -> None:
  """Shows what student and teacher, if one runs, find alike."""
  if not config.eval.pictures:
    return
  gallery, queries = eval_sets.chosen(config)
  networks = {"student": neighbours.of_student(parts.student, variables)}
  taught = parts.taught
  if taught.bank is None and "feature" in parts.specs[1]:
    teacher = neighbours.of_teacher(taught.source, taught.variables)
    networks = {"teacher": teacher, **networks}
  png = neighbours.draw(
    queries, gallery, parts.views, networks, count=config.eval.pictures
  )
  pictures.keep(where, "neighbours", png)


def _finish(
  config: ConfigDict, parts: Parts, state: TrainState, where: Path
) -> Result:
  """Exports the student and writes the report."""
  params = state.ema or state.params
  variables = {
    "params": params["student"],
    "batch_stats": state.stats["student"],
  }
  replicated = mesh_lib.replicated(parts.mesh)
  gather = jax.jit(lambda tree: tree, out_shardings=replicated)
  variables = jax.tree.map(np.asarray, gather(variables))
  last: dict[str, float] = {}
  if jax.process_index() == 0:
    size = parts.views.image_size
    student = parts.student.clone(
      interpolation=parts.views.interpolation,
      crop_pct=parts.views.crop_pct,
      input_size=(3, size, size),
    )
    convert.save_timm(
      student, variables, where / "student", name=config.student.name
    )
    _draw_neighbours(config, parts, variables, where)
    page.write_report(where)
    for line in metrics.read(where):
      last |= line
  return Result(parts.student, variables, last, where)
