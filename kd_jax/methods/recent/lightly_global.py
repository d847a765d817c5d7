"""LightlyTrain's first published form: features against a queue.

The student's pooled feature goes through a linear layer to the teacher's width;
both features have unit length. Their similarities to a queue of the teacher's
features, newest first, become probabilities; the term 'global' is KL(teacher
|| student), mean over the batch. The batch enters the queue before the loss is
taken. Verified against the figures of the released function (queue given);
temperature, sizes of the queue and the layer's start as described there.
Images are mixed by `config.mix` (mixup=1).

Ours: the queue starts with random directions, and all devices share one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import linear
from kd_jax.methods import one_phase, queue
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Similarities to a queue of the teacher's features.

  Attributes:
    terms: 'global', and 'kl' and 'ce' beside it.
    student: tap, a vector per image.
    teacher: tap, a vector per image: its class token, or pooled.
    images: of the training data, which sets the size of the queue as
      LightlyTrain does; 0: many.
    queue: rows of the queue; 0: by `images`.
    temperature: of both softmaxes.
  """

  OWN: ClassVar[tuple[str, ...]] = ("global",)

  terms: tuple[str, ...] = OWN
  student: str = "pooled"
  teacher: str = "pooled"
  images: int = 0
  queue: int = 0
  temperature: float = 0.07

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("temperature")
    if min(self.images, self.queue) < 0:
      raise ValueError(
        f"method.images is {self.images} and queue={self.queue}; both must be "
        "at least 0"
      )

  @property
  def rows(self) -> int:
    """Rows of the queue."""
    return self.queue or queue.size_for(self.images or queue.LARGEST**2)

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector of each."""
    return (self.student,), (self.teacher,)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """The layer, and the queue."""
    own, rows = jax.random.split(key)
    width = teacher[self.teacher].shape[-1]
    params = layer(own, student[self.student].shape[-1], width)
    return {
      "params": {"global": params},
      "queue": queue.random_rows(rows, self.rows, width),
    }

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over the images, and the queue with the batch in front."""
    del batch
    target = queue.unit(teacher[self.teacher])
    x = linear.Aligner().student(
      variables["params"]["global"], student[self.student]
    )
    rows = queue.pushed(variables["queue"], target)
    loss = divergence(queue.unit(x), target, rows, self.temperature)
    return {"global": loss}, {"queue": rows}


def layer(key: Array, width: int, target: int) -> dict[str, Any]:
  """A linear layer from a truncated normal distribution (.02)."""
  start = jax.nn.initializers.truncated_normal(0.02)
  return {
    "kernel": start(key, (width, target), jnp.float32),
    "bias": jnp.zeros((target,), jnp.float32),
  }


def divergence(
  student: Float[Array, "n d"],
  teacher: Float[Array, "n d"],
  rows: Float[Array, "q d"],
  temperature: float,
) -> Float[Array, ""]:
  """KL of the similarities to `rows`, mean over n; all of unit length."""
  highest = jax.lax.Precision.HIGHEST
  log_s, log_t = (
    jax.nn.log_softmax(jnp.matmul(x, rows.T, precision=highest) / temperature)
    for x in (student, teacher)
  )
  return jnp.mean(jnp.sum(jnp.exp(log_t) * (log_t - log_s), -1))
