"""From a config to the plan of a transfer: what its tasks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.build import checks, images, networks, training
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource, Method
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.teachers import none
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases
from kd_jax.train.experiment import Experiment, Names, Pictures
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.artifact import Fit
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.transfer.draws import Parts
from kd_jax.transfer.judge import JudgeT
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.protocol import Protocol
from kd_jax.types import Network, Specs, Variables


@dataclasses.dataclass(frozen=True)
class Task(Generic[JudgeT]):
  """What a task brings along.

  Attributes:
    student: the network.
    views: how images are prepared.
    method: what it learns.
    judge: (mesh, where skipped images are listed) -> what measures it.
    initial: what the network starts from; {} is nothing.
    classes: label classes that mixing turns into probabilities; 0 if labels
      cannot be mixed.
    refine: see `Plan`.
  """

  student: Network
  views: Views
  method: Method
  judge: Callable[[jax.sharding.Mesh, SkipLog], JudgeT]
  initial: Variables
  classes: int
  refine: Callable[[Variables, Inputs], Variables] | None = None


def protocol(config: ConfigDict) -> Protocol:
  """What `config.transfer` describes."""
  return resolve.construct(Protocol, config.transfer.to_dict(), "transfer")


def plan(
  config: ConfigDict,
  where: Path,
  task: Task[JudgeT],
  parts: Parts,
  test: DataSource,
) -> Plan[JudgeT]:
  """The runs of a transfer, checked.

  Args:
    config: of the task.
    where: the workdir; nothing is written.
    task: what is special about it.
    parts: the training images.
    test: the images that count.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  skips, wanted = SkipLog(where), protocol(config)
  found = _experiment(config, where, task, parts.source, skips)
  _check_batch(config.batch_size, parts, wanted)
  _check_rate(found.optim.lr)
  checks.counts({"eval.batch_size": config.eval.batch_size})
  mesh_lib.check_batch(
    config.eval.batch_size, found.mesh, field="eval.batch_size"
  )
  return Plan(
    experiment=found,
    parts=parts,
    test=test,
    judge=task.judge(found.mesh, skips),
    protocol=wanted,
    start=config.init_from or "nothing",
    on_skip=skips.report,
    refine=task.refine,
  )


def initial_backbone(config: ConfigDict) -> Variables:
  """What a network with a backbone starts from: its weights, or nothing."""
  found = networks.initial(config.student.to_dict(), config.init_from)
  return {kind: {"backbone": tree} for kind, tree in found.items()}


def _experiment(
  config: ConfigDict,
  where: Path,
  task: Task,
  data: DataSource,
  skips: SkipLog,
) -> Experiment:
  mesh, student = mesh_lib.make_mesh(), task.student
  mesh_lib.check_batch(config.batch_size, mesh, config.accum_steps)
  teaching = Teaching(none.Source(), {}, "none")
  inputs = Inputs(
    source=data,
    views=task.views,
    batch_size=config.batch_size,
    seed=config.seed,
    reading=images.reading(config.input.to_dict()),
    on_skip=skips.report(data),
  )
  settings = training.settings(config, mesh, task.views, task.classes)
  checks.inputs(inputs, settings, teaching)
  specs = _specs(task, config.batch_size, teaching), {}
  stretches = checks.stretches(
    task.method, config.steps, specs, teaching, config.ema_decay
  )
  return Experiment(
    names=Names(config.task, config.student.name, "", ""),
    schedule=training.schedule(config),
    mesh=mesh,
    student=student,
    teaching=teaching,
    method=task.method,
    specs=specs,
    stretches=stretches,
    settings=settings,
    optim=training.optim(config.optim.to_dict()).exempting(student.NO_DECAY),
    inputs=inputs,
    fit=Fit(teaching, inputs, mesh, where / "artifact.npz", False, 0),
    evaluate=lambda state, frozen: {},
    pictures=Pictures(config.eval.pictures, data, data),
    initial=task.initial,
  )


def _specs(task: Task, rows: int, teaching: Teaching) -> Specs:
  """Shapes of the network's taps."""
  batch = phases.image_batch(
    rows,
    task.views.canvas_size,
    teaching.source,
    label=task.views.label_specs(rows),
  )
  truth = any(phase.needs.truth for phase in task.method.phases())
  return phases.student_specs(task.student, batch, truth=truth)


def check_evals(evals: tuple[str, ...], task: str) -> None:
  """Whether none of them is asked for by a task without image labels."""
  if evals:
    raise ValueError(
      f"transfer.evals is {evals}; they read one feature and one label per "
      f"image, which {task} has not. Set --config.transfer.evals=()"
    )


def check_mix(fields: Mapping[str, float], labels: str) -> None:
  """Whether nothing is mixed: such labels have no shares of classes."""
  for name in ("mixup", "cutmix", "smoothing"):
    if fields[name]:
      raise ValueError(
        f"mix.{name} is {fields[name]}; {labels} are not mixed. Set "
        f"--config.mix.{name}=0"
      )


def _check_rate(lr: float) -> None:
  """Whether other rates can be multiples of the one that is compiled."""
  if not lr:
    raise ValueError(
      "optim.lr is 0; a transfer needs a learning rate above 0. Set "
      "--config.optim.lr"
    )


def _check_batch(batch_size: int, parts: Parts, wanted: Protocol) -> None:
  """Whether every run has as many images as a batch holds."""
  for what in (parts.searched, parts.trained):
    count = len(what(wanted.shots, 0))
    if batch_size > count:
      raise ValueError(
        f"batch_size is {batch_size}, and a run has {count} labelled images "
        f"to learn from; lower it to at most --config.batch_size={count}"
      )
