"""Comparing a map of the student with one of the teacher.

Stage-wise distillation leaves open how maps of other widths and sizes are made
comparable; every choice is a field here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import base, linear, maps, svd, svd_std
from kd_jax.types import Array

ADAPTERS = ("none", "linear", "orthogonal", "svd")
SIZES = ("pool", "bilinear")
NORMALISATIONS = ("off", "standard", "cos")
REDUCTIONS = ("mean", "sum")

# Channels that hardly vary (dead ones) would be blown up to unit variance.
_DEAD = 1e-10


@dataclasses.dataclass(frozen=True)
class Comparison:
  """From two taps to a distance per image.

  Attributes:
    adapter: what makes the widths equal: 'none'; 'linear', a 1x1 convolution
      of the student with bias; 'orthogonal', one with orthonormal rows or
      columns and no bias (VkD, Miles et al., CVPR 2024, by a QR decomposition);
      'svd', the teacher's principal directions (KDEP).
    size: 'pool' averages the larger map down to the smaller height and width;
      'bilinear' resizes the student's to the teacher's.
    normalise: 'off'; 'standard' standardises the teacher's channels with their
      mean and deviation over the training data; 'cos' scales both sides to
      unit length at every position.
    reduction: of the squared differences of an image, 'mean' or 'sum'.
  """

  adapter: str = "none"
  size: str = "pool"
  normalise: str = "off"
  reduction: str = "mean"

  @property
  def needs_statistics(self) -> bool:
    """Whether `sides` reads an artifact."""
    return self.adapter == "svd" or self.normalise == "standard"

  def init(self, key: Array, student: int, teacher: int) -> dict[str, Any]:
    """Parameters of the adapter between these widths; {} if it has none.

    Raises:
      ValueError: the widths differ, and there is no adapter.
    """
    if self.adapter == "none" and student != teacher:
      raise ValueError(
        f"the student's map has {student} channels and the teacher's {teacher},"
        " which method.adapter='none' cannot compare; set it to 'auto', "
        "'linear', 'orthogonal' or 'svd'"
      )
    if self.adapter == "linear":
      return linear.Aligner().init(key, student, teacher)
    if self.adapter == "orthogonal":
      shape = max(student, teacher), min(student, teacher)
      return {"kernel": jax.random.normal(key, shape)}
    return {}

  def sides(
    self,
    params: Mapping[str, Any],
    artifact: Mapping[str, Array],
    student: Float[Array, "n *s a"],
    teacher: Float[Array, "n *t b"],
  ) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """Both maps at one size and width, (student, target).

    Args:
      params: of the adapter.
      artifact: `basis.Basis.artifact` of the teacher's tap and 'rows', the
        number of rows it was fitted on; read if `needs_statistics`.
      student: map or tokens.
      teacher: map or tokens.
    """
    x, target = _wide(maps.as_map(student)), _wide(maps.as_map(teacher))
    target = self._target(artifact, target, x.shape[-1])
    x, target = self._resized(x, target)
    x = self._adapted(params, x, target.shape[-1])
    if self.normalise == "cos":
      x, target = _unit(x), _unit(target)
    return x, target

  def rows(
    self, student: Float[Array, "n h w c"], target: Float[Array, "n h w c"]
  ) -> Float[Array, " n"]:
    """The distance of every image; the loss is their mean."""
    reduce = jnp.mean if self.reduction == "mean" else jnp.sum
    return reduce(jnp.square(student - target), (1, 2, 3))

  def _target(
    self, artifact: Mapping[str, Array], x: Array, width: int
  ) -> Array:
    standard = self.normalise == "standard"
    if self.adapter == "svd":
      z = svd.Aligner().teacher(artifact, x, width)
      if not standard:
        return z
      _, singular = base.take_basis(artifact, x, width)
      deviations = jnp.sqrt(artifact["rows"] - 1) * svd_std.whitening(singular)
      return z * base.cycle(deviations, width)
    if not standard:
      return x
    base.check_artifact(artifact, x)
    variance = artifact["channel_variance"]
    alive = variance > _DEAD * jnp.max(variance)
    scale = jnp.where(alive, jax.lax.rsqrt(jnp.where(alive, variance, 1)), 0)
    return (x - artifact["mean"]) * scale

  def _resized(self, x: Array, target: Array) -> tuple[Array, Array]:
    ours, theirs = x.shape[1:3], target.shape[1:3]
    if ours == theirs:
      return x, target
    if self.size == "bilinear":
      shape = (x.shape[0], *theirs, x.shape[-1])
      return jax.image.resize(x, shape, "linear"), target
    size = tuple(map(min, ours, theirs))
    return _pooled(x, size), _pooled(target, size)

  def _adapted(self, params: Mapping[str, Any], x: Array, width: int) -> Array:
    if self.adapter == "linear":
      return linear.Aligner().student(params, x)
    if self.adapter == "orthogonal":
      q, _ = jnp.linalg.qr(params["kernel"])
      return x @ (q if x.shape[-1] >= width else q.T)
    return x


def _pooled(x: Array, size: tuple[int, ...]) -> Array:
  return x if x.shape[1:3] == size else losses.adaptive_mean(x, size)


def _unit(x: Array) -> Array:
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _wide(x: Array) -> Array:
  """Losses are computed in float32 at least, whatever the networks used."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
