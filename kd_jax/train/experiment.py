"""A pre-training run: built and checked, with nothing left to look up.

`build.experiment` makes one of a config. Below that door nobody sees a config:
every room reads the fields that it needs here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kd_jax.interfaces import DataSource, Method
from kd_jax.train import phases
from kd_jax.train.inputs import Inputs
from kd_jax.train.optim import Optim
from kd_jax.train.phases import Stretch
from kd_jax.train.step import Settings
from kd_jax.train.teacher.artifact import Fit
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Frozen, Network, Specs, TrainState, Variables

Evaluate = Callable[[TrainState, Frozen], Mapping[str, float]]
"""(state, frozen) -> {'eval/<name>': value}."""


@dataclasses.dataclass(frozen=True)
class Names:
  """What the config calls things; for people, and for exported files.

  Attributes:
    method: file of `methods`.
    student: architecture.
    teacher: architecture.
    teacher_weights: where they come from; '' if it is untrained.
  """

  method: str
  student: str
  teacher: str
  teacher_weights: str


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long a run trains, and what it does on the way.

  Attributes:
    steps: updates.
    batch_size: global, in views.
    seed: of everything random.
    log_every: steps between lines of metrics.
    eval_every: steps between evaluations; 0 evaluates only at the end.
    save_every: steps between checkpoints; 0 saves only at the end.
    save_last: whether there is one at the end; a run that was asked to stop
      leaves one in any case.
    keep: newest checkpoints that are kept.
    trackers: files of `report.trackers`, which get the figures too.
  """

  steps: int
  batch_size: int
  seed: int
  log_every: int
  eval_every: int
  save_every: int
  keep: int
  trackers: tuple[str, ...] = ()
  save_last: bool = True


@dataclasses.dataclass(frozen=True)
class Pictures:
  """What the report shows of the images.

  Attributes:
    count: training views, and queries; 0 draws no pictures.
    queries: where images come from whose neighbours are shown.
    gallery: where neighbours are looked for.
  """

  count: int
  queries: DataSource
  gallery: DataSource


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a run is made of, checked against each other.

  Attributes:
    names: what the config calls things.
    schedule: how long it trains.
    mesh: the devices.
    student: the network that learns.
    teaching: the teacher.
    method: what the student learns from it.
    specs: taps of student and teacher.
    stretches: the phases, with their steps.
    settings: of the train step.
    optim: the optimizer.
    inputs: the images.
    fit: where the teacher's statistics come from.
    evaluate: measures a state on the way: {'eval/<name>': value}.
    pictures: what the report shows.
    initial: variables that the student starts from; {} if none.
    rate: factor of the learning rate; None is 1.
    programs: see `loop.Job`; shared by what `dataclasses.replace` makes.
  """

  names: Names
  schedule: Schedule
  mesh: jax.sharding.Mesh
  student: Network
  teaching: Teaching
  method: Method
  specs: tuple[Specs, Specs]
  stretches: tuple[Stretch, ...]
  settings: Settings
  optim: Optim
  inputs: Inputs
  fit: Fit
  evaluate: Evaluate
  pictures: Pictures
  initial: Variables
  rate: float | None = None
  programs: dict[str, Callable[..., Any]] = dataclasses.field(
    default_factory=dict
  )

  def fresh(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fresh (params, stats), see `phases.init_variables`."""
    if "init" not in self.programs:
      self.programs["init"] = phases.initialiser(
        self.student, self.method, self.specs
      )
    found = self.programs["init"](*jax.random.split(key))
    return phases.parted(*found)
