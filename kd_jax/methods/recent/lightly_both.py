"""LightlyTrain's third published form: the queue, and relations of patches.

'global' is `lightly_global`. 'local': the student's map goes through a linear
layer of its own and is resized to the teacher's grid; tokens have unit length;
the similarities of every token to all of the same image become probabilities,
and the loss is KL(teacher || student), mean over all tokens. Both weigh 1.
Verified against the figures of the released functions.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import linear, maps
from kd_jax.methods import one_phase, queue
from kd_jax.methods.recent import lightly_dense, lightly_global
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(lightly_global.Method):
  """A queue of features, and patches among themselves.

  Attributes:
    terms: 'global' and 'local', and 'kl' and 'ce' beside them.
    student_map: tap, a map or tokens.
    teacher_map: tap, a map or tokens.
  """

  OWN: ClassVar[tuple[str, ...]] = ("global", "local")

  terms: tuple[str, ...] = OWN
  student_map: str = "stage4"
  teacher_map: str = "stage4"

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector and a map of each."""
    return (self.student, self.student_map), (self.teacher, self.teacher_map)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Both layers, and the queue."""
    one_phase.check_maps(self.student_map, "student", student)
    one_phase.check_maps(self.teacher_map, "teacher", teacher)
    found = super().variables_of(key, student, teacher)
    own = lightly_global.layer(
      jax.random.fold_in(key, 2),
      student[self.student_map].shape[-1],
      teacher[self.teacher_map].shape[-1],
    )
    return {**found, "params": {**found["params"], "local": own}}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over images and over tokens."""
    found, stats = super().compare(variables, student, teacher, batch)
    target = maps.as_map(teacher[self.teacher_map])
    x = linear.Aligner().student(
      variables["params"]["local"], maps.as_map(student[self.student_map])
    )
    x = lightly_dense.resized(x, target.shape[1:3])
    ours, theirs = (queue.unit(maps.as_tokens(side)) for side in (x, target))
    local = relations(ours, theirs, self.temperature)
    return {**found, "local": local}, stats


def relations(
  student: Float[Array, "n p d"],
  teacher: Float[Array, "n p d"],
  temperature: float,
) -> Float[Array, ""]:
  """KL of the similarities within each image, mean over all tokens."""
  highest = jax.lax.Precision.HIGHEST
  log_s, log_t = (
    jax.nn.log_softmax(
      jnp.einsum("npd,nqd->npq", x, x, precision=highest) / temperature
    )
    for x in (student, teacher)
  )
  return jnp.mean(jnp.sum(jnp.exp(log_t) * (log_t - log_s), -1))
