"""Optimizers and schedules, from optax, with PyTorch's conventions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

SCHEDULES = ("constant", "step", "cosine")
OPTIMIZERS = ("sgd", "adamw", "lamb")


@dataclasses.dataclass(frozen=True)
class Optim:
  """Optimizer of one phase; lengths are in steps.

  Attributes:
    name: 'sgd' (PyTorch's: decay added to the gradient before momentum),
      'adamw' or 'lamb'.
    lr: peak learning rate.
    momentum: for sgd; `b1` of the others.
    b2: second-moment decay of adamw and lamb.
    nesterov: for sgd.
    weight_decay: decay coefficient.
    decay_all: decay biases and normalisation parameters too (as KDEP does).
    schedule: 'constant', 'step' (times `gamma` every `decay_every` steps) or
      'cosine' (to zero at the end of the phase).
    decay_every: steps between two decays of 'step'.
    gamma: factor of 'step'.
    warmup: steps of linear warm-up from zero.
    clip_norm: largest global gradient norm; 0 switches clipping off.
  """

  name: str = "sgd"
  lr: float = 0.1
  momentum: float = 0.9
  b2: float = 0.999
  nesterov: bool = False
  weight_decay: float = 0.0
  decay_all: bool = True
  schedule: str = "constant"
  decay_every: int = 1
  gamma: float = 0.1
  warmup: int = 0
  clip_norm: float = 0.0

  def __post_init__(self) -> None:
    for field, allowed in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
      if getattr(self, field) not in allowed:
        raise ValueError(
          f"optim.{field} is {getattr(self, field)!r}; it can be {allowed}."
        )
    for field in ("lr", "weight_decay", "warmup", "clip_norm"):
      if getattr(self, field) < 0:
        raise ValueError(
          f"optim.{field} is {getattr(self, field)}; it must be at least 0."
        )
    if self.schedule == "step" and self.decay_every < 1:
      raise ValueError(
        f"optim.decay_every is {self.decay_every}; it must be at least 1 step."
      )

  def rate(self, total_steps: int) -> optax.Schedule:
    """The learning rate of each step of a phase of `total_steps`.

    Raises:
      ValueError: the warm-up would not end before the phase does.
    """
    after = total_steps - self.warmup
    if after < 1:
      raise ValueError(
        f"optim.warmup={self.warmup} leaves no step of the {total_steps} of "
        "its phase; lower --config.optim.warmup or raise --config.steps"
      )
    curves = {
      "constant": lambda: optax.constant_schedule(self.lr),
      "step": lambda: optax.exponential_decay(
        self.lr, self.decay_every, self.gamma, staircase=True
      ),
      "cosine": lambda: optax.cosine_decay_schedule(self.lr, after),
    }
    curve = curves[self.schedule]()
    if not self.warmup:
      return curve
    ramp = optax.linear_schedule(0.0, self.lr, self.warmup)
    return optax.join_schedules([ramp, curve], [self.warmup])

  def transform(self, total_steps: int) -> optax.GradientTransformation:
    """The optax transformation for {path: parameter} dicts."""
    rate = self.rate(total_steps)
    clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
    builders = {"sgd": self._sgd, "adamw": self._adamw, "lamb": self._lamb}
    return optax.chain(*clip, builders[self.name](rate))

  def _sgd(self, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(
      optax.add_decayed_weights(self.weight_decay, self._mask),
      optax.trace(self.momentum, self.nesterov),
      optax.scale_by_learning_rate(rate),
    )

  def _adamw(self, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(
      rate,
      self.momentum,
      self.b2,
      weight_decay=self.weight_decay,
      mask=self._mask,
    )

  def _lamb(self, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.lamb(
      rate,
      self.momentum,
      self.b2,
      weight_decay=self.weight_decay,
      mask=self._mask,
    )

  def _mask(self, params: Mapping[str, Any]) -> dict[str, bool]:
    """Vectors are biases and normalisation parameters."""
    return {k: self.decay_all or v.ndim > 1 for k, v in params.items()}
