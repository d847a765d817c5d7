"""A teacher network that runs in evaluation mode beside the student."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import interfaces
from kd_jax.convert import load_pretrained
from kd_jax.models.backbone import Backbone
from kd_jax.types import Array, Batch, Taps, Teacher, Variables


@dataclasses.dataclass(frozen=True)
class Source(interfaces.TeacherSource):
  """Runs `model` with the frozen variables on the student's own images."""

  model: Backbone
  can_resume = True

  @property
  def network(self) -> Backbone:
    """The network."""
    return self.model

  @property
  def evaluation_view(self) -> interfaces.EvaluationView:
    """As the weights were evaluated."""
    return interfaces.EvaluationView(
      self.model.interpolation, self.model.crop_pct, self.model.crop_mode
    )

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """Taps of the batch; what nobody reads, XLA does not compute."""
    variables = frozen["teacher"]

    def resume(begin: str, x: Array, end: str = "head") -> Taps:
      return self.model.apply(variables, x, train=False, begin=begin, end=end)

    found = self.model.apply(variables, batch.image, train=False)
    taps = jax.lax.stop_gradient(dict(found))
    unknown = batch.mask[0]
    return Teacher({k: _whole(x, unknown) for k, x in taps.items()}, resume)


def _whole(tap: Array, unknown: Array) -> Array:
  """The tap with the bits that it has on its own, as it comes from a bank.

  Fused with the loss, it could differ in the last bits. XLA removes barriers
  on CPUs before it fuses, but not conditions that it cannot foresee.
  """

  def through(tap: Array, unknown: Array) -> Array:
    return jax.lax.cond(unknown < 2, lambda x: x, jnp.zeros_like, tap)

  def barrier(tap: Array, _: Array) -> Array:
    return jax.lax.optimization_barrier(tap)

  return jax.lax.platform_dependent(tap, unknown, cpu=through, default=barrier)


def load(
  name: str, weights: Any, overrides: Mapping[str, Any]
) -> tuple[Source, Variables]:
  """Loads a teacher; see `kd_jax.load_pretrained` for what `weights` may be.

  Raises:
    ValueError: no weights given, or they do not fit the architecture.
  """
  if not weights:
    raise ValueError(
      f"the teacher {name!r} has no weights. Set --config.teacher.weights to "
      "a .safetensors file, a directory or a hub name such as 'timm/"
      f"{name}.a1_in1k'."
    )
  model, variables = load_pretrained(name, weights, **overrides)
  return Source(model), variables
