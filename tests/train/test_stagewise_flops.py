"""What a phase computes, by the compiled step's own count of operations."""

import jax
import numpy as np
import pytest

import kd_jax
from kd_jax import trees
from kd_jax.build import network_facts
from kd_jax.methods import stagewise
from kd_jax.teachers import random
from kd_jax.train import phases
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.types import Batch, TrainState

STAGES = ("stage1", "stage2", "stage3", "stage4")
SIZE, ROWS = 32, 4
NET = {"channels": (8, 16, 32, 64), "stem_width": 8, "stem_type": "cifar"}
# It compiles twenty programs.
pytestmark = pytest.mark.slow
# For the loss, the optimizer and the norm of the gradient: 0.6 % were measured.
SLACK = 1.01


def cost(function, *shapes):
  """Operations of the compiled program."""
  return jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]


class Pair:
  """A student, a deeper teacher of its widths, and their parts."""

  def __init__(self):
    fields = {**NET, "layers": (1, 1, 1, 1), "num_classes": 5}
    self.student = kd_jax.create_model("resnet18", **fields)
    deep = {**NET, "layers": (2, 2, 2, 2)}
    self.source, teacher = random.load("resnet18", "", deep)
    batch = phases.image_batch(ROWS, SIZE, self.source)
    self.frozen = {"teacher": teacher, "artifact": {}}
    self.specs = (
      phases.student_specs(self.student, batch),
      phases.teacher_specs(self.source, self.frozen, batch),
    )
    found = network_facts.networks(
      self.student, self.source.model, self.specs, SIZE
    )
    self.method = stagewise.Method((*STAGES, "ce"), budget="equal").bind(found)
    self.batch = batch
    self.variables = jax.eval_shape(
      self.student.init, jax.random.key(0), batch.image
    )

  def step(self, phase):
    """Operations of the compiled train step of a phase."""
    params = {"student": self.variables["params"]}
    tx = Optim(nesterov=True, weight_decay=1e-4, schedule="cosine").transform(9)
    state = TrainState(
      step=np.zeros((), np.int32),
      params=params,
      stats={"student": self.variables["batch_stats"], "method": {}},
      opt=jax.eval_shape(tx.init, step_lib.trainable(params, phase)),
      ema={},
      rng=np.zeros(2, np.uint32),
    )
    settings = step_lib.Settings(weights=dict.fromkeys((*STAGES, "ce"), 1.0))
    step = step_lib.make_train_step(
      self.student, self.source, phase, tx, settings
    )
    batch = Batch(
      image=jax.ShapeDtypeStruct((ROWS, SIZE, SIZE, 3), np.uint8),
      label=self.batch.label,
      mask=self.batch.mask,
    )
    compiled = step.lower(state, self.frozen, batch).compile()
    return compiled.cost_analysis()["flops"]

  def teacher(self, end):
    """Operations of the teacher's forward pass up to a stage."""
    model = self.source.model
    return cost(
      lambda v, x: model.apply(v, x, train=False, end=end)[end],
      self.frozen["teacher"],
      self.batch.image,
    )

  def run(self, variables, x, begin, end):
    return self.student.apply(
      variables, x, train=True, begin=begin, end=end, mutable=["batch_stats"]
    )[0][end]

  def forward(self, end):
    """Operations of the student's forward pass up to a stage."""
    return cost(
      lambda v, x: self.run(v, x, "stem", end), self.variables, self.batch.image
    )

  def backward(self, stage):
    """Operations of one stage's backward pass to its own parameters."""
    first = "stem" if stage == "stage1" else stage
    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    before = names[names.index(first) - 1] if first != "stem" else ""
    x = self.specs[0][before] if before else self.batch.image
    leaves = trees.flatten(
      {k: v for k, v in self.variables["params"].items() if k in (first, stage)}
    )

    def loss(leaves, variables, x):
      params = trees.overlay(variables["params"], leaves)
      y = self.run({**variables, "params": params}, x, first, stage)
      return (y**2).mean()

    given = leaves, self.variables, x
    return cost(jax.grad(loss), *given) - cost(loss, *given)


@pytest.fixture(scope="module")
def counted():
  """{stage: operations of (step, teacher, forward, backward)}."""
  pair = Pair()
  return {
    phase.name: (
      pair.step(phase),
      pair.teacher(phase.name),
      pair.forward(phase.name),
      pair.backward(phase.name),
    )
    for phase in pair.method.phases()[:-1]
  }


@pytest.mark.parametrize("stage", STAGES)
def test_a_phase_costs_both_forward_passes_and_one_stage_back(counted, stage):
  """The teacher stops at the stage, later ones and gradients do not run."""
  step, teacher, forward, backward = counted[stage]
  bound = SLACK * (teacher + forward + backward)
  assert step <= bound


def test_the_bound_would_notice_more(counted):
  """One more stage of the teacher, or of the backward pass, would exceed it."""
  for stage, after in zip(STAGES, STAGES[1:], strict=False):
    step, teacher, forward, backward = counted[stage]
    bound = SLACK * (teacher + forward + backward)
    assert step + counted[after][1] - teacher > bound
    assert step + counted[after][2] - forward > bound
    before, (step, *parts) = counted[stage][3], counted[after]
    assert step + before > SLACK * sum(parts)
