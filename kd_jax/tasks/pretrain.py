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
from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.build import abstract
from kd_jax.build.experiment import experiment as build_experiment
from kd_jax.preflight import study, topologies
from kd_jax.report import page
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.report.pictures import training_views
from kd_jax.report.run import summary, throughput
from kd_jax.running import abreast, pictures, training
from kd_jax.train.experiment import Experiment
from kd_jax.types import Network, TrainState


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run is worth.

  Attributes:
    student: the network.
    variables: its weights on the host, the moving average if there is one.
    metrics: the last value of every metric.
    workdir: where everything was written.
  """

  student: Network
  variables: Mapping[str, Any]
  metrics: Mapping[str, float]
  workdir: Path


def run(config: ConfigDict, where: str | Path) -> Result | None:
  """Runs or continues the pre-training of `config` in the folder `where`.

  Returns:
    The student, or None after a dry run; with `config.topology` nothing runs,
    and the steps are compiled for that slice, see `preflight`.

  Raises:
    ValueError: anything in the config that cannot work, before step 0.
    Stopped: SIGTERM; the state is saved.
  """
  where = Path(where)
  if config.topology:
    topologies.on_cpu()
  with workdir.claimed(where, config.to_dict()):
    if config.topology:
      price = config.price_per_chip_hour
      return _preflight(abstract.planned(config, where), price, where)
    experiment = build_experiment(config, where)
    about = summary.about(experiment, where)
    if jax.process_index() == 0:
      summary.show(about, experiment.specs)
      workdir.write(where / "summary.json", json.dumps(about, default=str))
    if config.dry_run:
      summary.say(str(throughput.measure(experiment)))
      return None
    return train(experiment, where)


def _preflight(plan: abstract.Plan, price: float, where: Path) -> None:
  """Compiles a plan, says and keeps what was found."""
  for line in plan.assumed:
    summary.say(f"assumed: {line}")
  summary.say(f"compiling for {plan.topology.name}, which may take minutes")
  found = study.study(
    plan.experiment, plan.topology, price=price, assumed=plan.assumed
  )
  summary.say(study.text(found))
  study.keep(found, where)


def train(experiment: Experiment, where: Path) -> Result:
  """Runs or continues an experiment in the folder `where`.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """
  _draw_views(experiment, where)
  state = training.fit(experiment, where)
  return _finish(experiment, state, where)


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
    images=experiment.inputs.images,
    bank=experiment.teaching.bank,
  )
  words = "The first images of the run, and what the networks get of each."
  with abreast.drawing:
    sheet_lib.keep(where, "views", training_views.draw(shown), words)


def _finish(experiment: Experiment, state: TrainState, where: Path) -> Result:
  """Exports the student and writes the report."""
  variables = training.host_variables(experiment, state)
  last: Mapping[str, float] = {}
  if jax.process_index() == 0:
    training.export(experiment, variables, where)
    with abreast.drawing:
      pictures.keep(experiment, variables, where)
      page.write_report(where)
    last = training.last_figures(where)
  return Result(experiment.student, variables, last, where)
