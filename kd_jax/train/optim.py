"""Optimizers and schedules, from optax, with PyTorch's conventions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Int

from kd_jax.train import group_rates

SCHEDULES = (
  "constant",
  "step",
  "milestones",
  "cosine",
  "whole_cosine",
  "poly",
)
OPTIMIZERS = ("sgd", "adamw", "lamb")

_AT_LEAST_ZERO = (
  "lr",
  "weight_decay",
  "warmup",
  "warmup_lr",
  "final_lr",
  "clip_norm",
  "power",
  "head_lr",
)


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
    no_decay: names of parameters and modules that never decay, wherever they
      are, such as 'pos_embed'; None leaves it to `exempting`.
    schedule: 'constant', 'step' (times `gamma` every `decay_every` steps),
      'milestones' (times `gamma` at each of them), 'cosine' (to `final_lr` at
      the end of the phase), 'whole_cosine' (the same, but begun at step 0,
      beneath the warm-up, as timm does) or 'poly' (times (1 - share of the
      steps)^power, as segmentation networks train).
    power: of 'poly'.
    decay_every: steps between two decays of 'step'.
    milestones: steps of 'milestones', which count from the begin of the
      warm-up, as detectors train.
    gamma: factor of 'step' and 'milestones'.
    warmup: steps of linear warm-up.
    warmup_frac: the same as a share of the phase, for phases of different
      lengths; only one of the two.
    warmup_lr: where the warm-up begins.
    final_lr: where a cosine ends.
    stairs: ((start, every, at), ...), for rates that change once an epoch:
      from step `start` on the rate stays for `every` steps each; the first
      stair has the rate of step `at`, the next that of `at + every`.
    clip_norm: largest global gradient norm; 0 switches clipping off.
    head_lr: factor of the rate of the task's own head, see `group_rates`.
    layer_decay: factor of the rate from a layer to the one below it; 1 is
      none.

  Raises:
    ValueError: a value that is not allowed.
  """

  name: str = "sgd"
  lr: float = 0.1
  momentum: float = 0.9
  b2: float = 0.999
  nesterov: bool = False
  weight_decay: float = 0.0
  decay_all: bool = True
  no_decay: tuple[str, ...] | None = None
  schedule: str = "constant"
  decay_every: int = 1
  gamma: float = 0.1
  warmup: int = 0
  warmup_lr: float = 0.0
  warmup_frac: float = 0.0
  final_lr: float = 0.0
  stairs: tuple[tuple[int, int, int], ...] = ()
  clip_norm: float = 0.0
  power: float = 0.9
  head_lr: float = 1.0
  layer_decay: float = 1.0
  milestones: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    # Configs hold lists; the dataclass stays hashable.
    stairs = tuple(tuple(np.ravel(stair).tolist()) for stair in self.stairs)
    object.__setattr__(self, "stairs", stairs)
    object.__setattr__(self, "milestones", tuple(self.milestones))
    if self.no_decay is not None:
      object.__setattr__(self, "no_decay", tuple(self.no_decay))
    for field, allowed in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
      if getattr(self, field) not in allowed:
        raise ValueError(
          f"optim.{field} is {getattr(self, field)!r}; it can be {allowed}."
        )
    for field in _AT_LEAST_ZERO:
      if getattr(self, field) < 0:
        raise ValueError(
          f"optim.{field} is {getattr(self, field)}; it must be at least 0."
        )
    if self.schedule == "step" and self.decay_every < 1:
      raise ValueError(
        f"optim.decay_every is {self.decay_every}; it must be at least 1 step."
      )
    if self.final_lr and (self.final_lr > self.lr or not self._falls):
      raise ValueError(
        f"optim.final_lr is {self.final_lr}; only a cosine ends there, and at "
        f"most at optim.lr={self.lr}. schedule is {self.schedule!r}"
      )
    if not 0 < self.layer_decay <= 1:
      raise ValueError(
        f"optim.layer_decay is {self.layer_decay}; it must be in (0, 1]"
      )
    self._check_warmup()
    self._check_milestones()
    _check_stairs(self.stairs)

  def _check_warmup(self) -> None:
    if not 0 <= self.warmup_frac < 1 or (self.warmup_frac and self.warmup):
      raise ValueError(
        f"optim.warmup_frac is {self.warmup_frac} and warmup={self.warmup}; "
        "the share is in [0, 1), and only one of the two can be set"
      )
    if self.warmup_lr and not (self.warmup or self.warmup_frac):
      raise ValueError(
        f"optim.warmup_lr is {self.warmup_lr}, and there is no warm-up; set "
        "optim.warmup, in steps"
      )

  def _check_milestones(self) -> None:
    found = self.milestones
    asked = self.schedule == "milestones"
    rises = list(found) == sorted({*found}) and min(found, default=1) > 0
    if bool(found) != asked or not rises:
      raise ValueError(
        f"optim.milestones is {found} with schedule={self.schedule!r}; "
        "'milestones' needs rising steps above 0, and no other schedule any"
      )
    if found and found[0] <= self.warmup:
      raise ValueError(
        f"optim.milestones is {found}, and the warm-up ends at step "
        f"{self.warmup}; the first milestone must come later"
      )

  def exempting(self, names: tuple[str, ...]) -> Optim:
    """The same, for a network whose `names` do not decay either.

    That is timm's rule, which leaves them out together with vectors; an
    explicit `no_decay` wins.

    Args:
      names: see `models.backbone.Backbone.NO_DECAY`.
    """
    if self.decay_all or self.no_decay is not None:
      return self
    return dataclasses.replace(self, no_decay=names)

  def rate(self, total_steps: int) -> optax.Schedule:
    """The learning rate of each step of a phase of `total_steps`.

    Raises:
      ValueError: the warm-up would not end before the phase does.
    """
    if self.warmup_frac:
      return self._in_steps(total_steps).rate(total_steps)
    after = total_steps - self.warmup
    if after < 1:
      raise ValueError(
        f"optim.warmup={self.warmup} leaves no step of the {total_steps} of "
        "its phase; lower --config.optim.warmup or raise --config.steps"
      )
    curve = self._warmed(self._curve(total_steps))
    if not self.stairs:
      return curve
    return lambda step: curve(self._stair(step))

  def transform(self, total_steps: int) -> optax.GradientTransformation:
    """The optax transformation for {path: parameter} dicts."""
    rate = self.rate(total_steps)
    clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
    builders = {"sgd": self._sgd, "adamw": self._adamw, "lamb": self._lamb}
    return optax.chain(*clip, builders[self.name](rate), *self._groups())

  def _groups(self) -> list[optax.GradientTransformation]:
    """Rates of groups, where they differ."""
    if self.head_lr == 1 and self.layer_decay == 1:
      return []
    return [group_rates.head_and_layers(self.head_lr, self.layer_decay)]

  def _in_steps(self, total_steps: int) -> Optim:
    """The same with `warmup`, which may round to none."""
    warmup = round(self.warmup_frac * total_steps)
    return dataclasses.replace(
      self,
      warmup=warmup,
      warmup_frac=0.0,
      warmup_lr=self.warmup_lr if warmup else 0.0,
    )

  @property
  def _falls(self) -> bool:
    return self.schedule in ("cosine", "whole_cosine")

  def _curve(self, total_steps: int) -> optax.Schedule:
    """The rate after the warm-up; 'whole_cosine' counts from step 0."""
    after = total_steps - self.warmup
    falls = self.final_lr / self.lr if self.lr else 0.0
    curves = {
      "constant": lambda: optax.constant_schedule(self.lr),
      "step": lambda: optax.exponential_decay(
        self.lr, self.decay_every, self.gamma, staircase=True
      ),
      "milestones": lambda: optax.piecewise_constant_schedule(
        self.lr, {step - self.warmup: self.gamma for step in self.milestones}
      ),
      "cosine": lambda: optax.cosine_decay_schedule(self.lr, after, falls),
      "whole_cosine": lambda: optax.cosine_decay_schedule(
        self.lr, total_steps, falls
      ),
      "poly": lambda: optax.polynomial_schedule(
        self.lr, 0.0, self.power, after
      ),
    }
    return curves[self.schedule]()

  def _warmed(self, curve: optax.Schedule) -> optax.Schedule:
    if not self.warmup:
      return curve
    ramp = optax.linear_schedule(self.warmup_lr, self.lr, self.warmup)
    # join_schedules counts from the end of the warm-up.
    hidden = self.warmup if self.schedule == "whole_cosine" else 0
    return optax.join_schedules(
      [ramp, lambda step: curve(step + hidden)], [self.warmup]
    )

  def _stair(self, step: ArrayLike) -> Int[Array, ""]:
    """The step whose rate holds at `step`."""
    found = step = jnp.asarray(step)
    for start, every, at in self.stairs:
      stair = at + (step - start) // every * every
      found = jnp.where(step >= start, stair, found)
    return found

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
    exempt = set(self.no_decay or ())
    return {
      path: (self.decay_all or leaf.ndim > 1)
      and exempt.isdisjoint(path.split("/"))
      for path, leaf in params.items()
    }


def _check_stairs(stairs: tuple[tuple[int, ...], ...]) -> None:
  starts = [stair[0] for stair in stairs if len(stair) == 3]
  whole = len(starts) == len(stairs) and all(
    start >= 0 and every >= 1 and at >= 0 for start, every, at in stairs
  )
  if not whole or starts != sorted(set(starts)):
    raise ValueError(
      f"optim.stairs is {stairs}; it holds (start, every, at) in steps, start "
      "and at >= 0, every >= 1, in rising order of start"
    )
