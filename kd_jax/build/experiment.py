"""From a config to an `Experiment`: the door behind which configs end.

config -> method, student, teacher -> images -> taps -> phases -> evaluation;
whatever does not exist or does not fit is refused here, before step 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax.build import (
  checks,
  evaluation,
  images,
  network_facts,
  networks,
  training,
)
from kd_jax.build.teachers import entries, joined
from kd_jax.interfaces import DataSource, Method
from kd_jax.models.backbone import Backbone
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases
from kd_jax.train.experiment import Evaluate, Experiment, Names, Pictures
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Specs, Variables


@dataclasses.dataclass(frozen=True)
class Doors:
  """Where the parts of an experiment come from that are not in its config.

  Attributes:
    mesh: arranges the devices.
    data: opens the images.
    teaching: loads the teacher.
    watch: makes what measures a run, and what its report shows; gets what
      `evaluation.evaluator` does.
    initial: loads what the student starts from.
  """

  mesh: Callable[[ConfigDict], jax.sharding.Mesh]
  data: Callable[[ConfigDict], DataSource]
  teaching: Callable[[ConfigDict], Teaching]
  watch: Callable[..., tuple[Evaluate, Pictures]]
  initial: Callable[[Mapping[str, Any], str], Variables]


REAL = Doors(
  mesh=training.mesh,
  data=lambda config: images.source(config.data.to_dict()),
  teaching=lambda config: joined.teaching(
    config.to_dict(),
    functools.partial(networks.teacher, dtype=config.dtype),
  ),
  watch=evaluation.evaluator,
  initial=networks.initial,
)
"""Of a run: this machine's devices, files and weights."""


def experiment(
  config: ConfigDict, where: str | Path, doors: Doors = REAL
) -> Experiment:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'pretrain'.
    where: the workdir; nothing is written.
    doors: where devices, images and weights come from.

  Raises:
    ValueError: something does not exist, does not fit or cannot be reached.
  """
  checks.counts({"fit.examples": config.fit.examples})
  schedule, mesh = training.schedule(config), doors.mesh(config)
  mesh_lib.check_batch(config.batch_size, mesh, config.accum_steps)
  optim = training.optim(config.optim.to_dict())
  method, student = training.method(config), networks.student(config)
  data, teaching = doors.data(config), doors.teaching(config).on(mesh)
  skips = SkipLog(Path(where))
  inputs = images.inputs(config, data, teaching).reporting(skips.report(data))
  inputs = joined.inputs(inputs, config.to_dict(), teaching)
  settings = training.settings(config, mesh, inputs.views, data.num_classes)
  checks.inputs(inputs, settings, teaching)
  specs = _specs(student, teaching, inputs, inputs.views.image_size)
  method = _bound(method, student, teaching, specs, inputs.views.image_size)
  stretches = checks.stretches(
    method, config.steps, specs, teaching, config.ema_decay
  )
  _check_sizes(method, stretches, student, teaching, inputs)
  checks.labels(method, data, specs[0])
  judged = any(stretch.phase.judge for stretch in stretches)
  evaluate, pictures = doors.watch(
    config, student, teaching, method, inputs, mesh, skips, judged=judged
  )
  checks.eval_tap(tuple(config.eval.evals), config.eval.tap, specs[0])
  return Experiment(
    names=_names(config.to_dict()),
    schedule=schedule,
    mesh=mesh,
    student=student,
    teaching=teaching,
    method=method,
    specs=specs,
    stretches=stretches,
    settings=settings,
    optim=optim.exempting(student.NO_DECAY),
    inputs=inputs,
    fit=images.fit(config.fit.to_dict(), teaching, inputs, mesh, Path(where)),
    evaluate=evaluate,
    pictures=pictures,
    initial=doors.initial(config.student.to_dict(), config.init_from),
  )


def _names(config: Mapping[str, Any]) -> Names:
  own = (config["method"]["name"], config["student"]["name"])
  teacher, several = config["teacher"], entries.of(config)
  if not several:
    return Names(*own, teacher["name"], teacher["weights"])
  named = [f"{name}: {entry.name}" for name, entry in several.items()]
  weights = [f"{name}: {entry.weights}" for name, entry in several.items()]
  return Names(*own, ", ".join(named), ", ".join(weights))


def _bound(
  method: Method,
  student: Backbone,
  teaching: Teaching,
  specs: tuple[Specs, Specs],
  image_size: int,
) -> Method:
  """The method that runs: some depend on the networks."""
  if not method.needs_networks:
    return method
  facts = network_facts.networks(student, teaching.network, specs, image_size)
  return method.bind(facts)


def _check_sizes(
  method: Method,
  found: tuple[phases.Stretch, ...],
  student: Backbone,
  teaching: Teaching,
  inputs: Inputs,
) -> None:
  """See `checks.sizes`."""
  specs_at = functools.partial(_specs, student, teaching, inputs)
  checks.sizes(method, found, inputs.views, specs_at)


def _specs(
  student: Backbone, teaching: Teaching, inputs: Inputs, side: int
) -> tuple[Specs, Specs]:
  """Tap shapes of student and teacher; the student sees `side` pixels."""
  batch = phases.image_batch(inputs.batch_size, side, teaching.source)
  frozen = {"teacher": teaching.variables, "artifact": {}}
  return (
    phases.student_specs(student, batch),
    phases.teacher_specs(teaching.source, frozen, batch),
  )
