"""Two maps at one size."""

from __future__ import annotations

from jaxtyping import Float

from kd_jax import losses
from kd_jax.types import Array


def smaller(
  student: Float[Array, "n h w a"], teacher: Float[Array, "n i j b"]
) -> tuple[Float[Array, "n y x a"], Float[Array, "n y x b"]]:
  """Both averaged down to the smaller height and width."""
  size = tuple(map(min, student.shape[1:3], teacher.shape[1:3]))
  return pooled(student, size), pooled(teacher, size)


def pooled(
  x: Float[Array, "n h w c"], size: tuple[int, ...]
) -> Float[Array, "n y x c"]:
  """The map averaged down, or as it is."""
  return x if x.shape[1:3] == size else losses.adaptive_mean(x, size)
