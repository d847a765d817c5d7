"""A transfer: one experiment, and the runs of it that its protocol asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic

from kd_jax.data.pipeline import Report
from kd_jax.interfaces import DataSource
from kd_jax.train.experiment import Experiment
from kd_jax.train.inputs import Inputs
from kd_jax.transfer.draws import Parts
from kd_jax.transfer.judge import JudgeT, on_devices
from kd_jax.transfer.protocol import Protocol
from kd_jax.types import Frozen, TrainState, Variables


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of a transfer.

  Attributes:
    rate: peak learning rate.
    seed: of head, order and augmentation, and of the draw of few labels.
    search: whether it only helps to choose the rate.
  """

  rate: float
  seed: int
  search: bool = False

  @property
  def name(self) -> str:
    """What its folder is called."""
    kind = "search" if self.search else "final"
    return f"{kind}_lr{self.rate:g}_seed{self.seed}"


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Generic[JudgeT]):
  """Everything that a transfer is made of, checked against each other.

  Attributes:
    experiment: what all runs share; its images, seed, rate and evaluation are
      those of no run. All runs use its compiled steps.
    parts: the training images.
    test: the images that the result is measured on.
    judge: what measures.
    protocol: which runs there are.
    start: what the network starts from, for people.
    on_skip: source -> what is told of its records that cannot be read.
    refine: (weights on the devices, images of the run) -> what is judged and
      kept; None takes the weights as they are.
  """

  experiment: Experiment
  parts: Parts
  test: DataSource
  judge: JudgeT
  protocol: Protocol
  start: str
  on_skip: Callable[[DataSource], Report]
  refine: Callable[[Variables, Inputs], Variables] | None = None

  @property
  def rates(self) -> tuple[float, ...]:
    """The learning rates to choose from."""
    return self.protocol.rates or (self.experiment.optim.lr,)

  @property
  def num_runs(self) -> int:
    """How many there are; without a search, every rate has all seeds."""
    search = len(self.protocol.search())
    rates = 1 if search else len(self.rates)
    return search + rates * len(self.protocol.seeds)

  def images(self, trial: Trial) -> DataSource:
    """What a run trains on."""
    drawn = self.parts.searched if trial.search else self.parts.trained
    return drawn(self.protocol.shots, trial.seed)

  def of(self, trial: Trial) -> Experiment:
    """The experiment of a run."""
    base, images = self.experiment, self.images(trial)
    every = base.schedule.eval_every if not trial.search else 0
    # What a finished run has found outlives its checkpoints at once.
    save_last = base.schedule.save_every > 0
    judged = self.parts.held_out() if trial.search else self.test
    inputs = dataclasses.replace(
      base.inputs,
      source=images,
      seed=trial.seed,
      on_skip=self.on_skip(images),
    )
    return dataclasses.replace(
      base,
      schedule=dataclasses.replace(
        base.schedule,
        seed=trial.seed,
        eval_every=every,
        save_last=save_last,
      ),
      inputs=inputs,
      evaluate=self.measured(judged, inputs),
      rate=trial.rate / base.optim.lr,
    )

  def measured(
    self, source: DataSource, inputs: Inputs
  ) -> Callable[[TrainState, Frozen], dict[str, float]]:
    """What the loop calls: the figures of a state on `source`.

    Args:
      source: the images that count.
      inputs: what the state is trained on.
    """

    def evaluate(state: TrainState, frozen: Frozen) -> dict[str, float]:
      del frozen
      variables = self.refined(variables_of(state), inputs)
      found = self.judge.figures(variables, source)
      return {f"eval/{name}": value for name, value in found.items()}

    return evaluate

  def refined(self, variables: Variables, inputs: Inputs) -> Variables:
    """What is judged, and kept, of a network that was trained on `inputs`."""
    if self.refine is None:
      return variables
    placed = on_devices(variables, self.experiment.mesh)
    return self.refine(placed, inputs)


def variables_of(state: TrainState) -> Variables:
  """What `student.apply` takes: the moving average, if there is one."""
  params = state.ema or state.params
  return {
    "params": params["student"],
    "batch_stats": state.stats["student"],
  }
