"""Contrastive representation distillation (Tian et al., ICLR 2020).

A critic tells the pair of one image's two features from pairs of different
images: with e = exp(s . t / tau) of features after linear maps to unit length,
h = e / (e + K Z) (equation 19, divided by what the images' number cancels);
the loss is -ln h of the pair, and -ln(1 - h) summed over the K negatives. The
term 'student' has negatives of the teacher's features, 'teacher' of the
student's, as in the authors' code. Z is the mean of e over the first batch's
negatives, and stays (that code's normalisation). From the paper; checked
against NumPy.

Ours: the negatives are a queue of the features of past batches, newest first,
not a memory of all images with moving averages: it takes as much memory
whatever the number of images, and needs no number of an image.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import linear
from kd_jax.methods import one_phase, queue
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

_SIDES = ("student", "teacher")


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Which feature belongs to which.

  Attributes:
    terms: 'student' and 'teacher', and 'kl' and 'ce' beside them.
    tap: of both networks, a vector per image.
    width: of the features that are compared.
    negatives: rows of the queues, K.
    temperature: tau.
  """

  OWN: ClassVar[tuple[str, ...]] = _SIDES

  terms: tuple[str, ...] = OWN
  tap: str = "pooled"
  width: int = 128
  negatives: int = 16_384
  temperature: float = 0.07

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("width", "negatives", "temperature")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same tap of both."""
    return (self.tap,), (self.tap,)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Linear maps of both sides, their queues, and no Z (0) yet."""
    keys = jax.random.split(key, 4)
    own = zip(_SIDES, (student, teacher), keys[:2], strict=True)
    params = {
      side: linear.Aligner().init(each, specs[self.tap].shape[-1], self.width)
      for side, specs, each in own
    }
    rows = {
      side: queue.random_rows(each, self.negatives, self.width)
      for side, each in zip(_SIDES, keys[2:], strict=True)
    }
    scale = {side: jnp.zeros(()) for side in _SIDES}
    return {"params": params, "queue": rows, "scale": scale}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over the images; the queues take the batch afterwards."""
    del batch
    rows = {
      side: queue.unit(
        linear.Aligner().student(variables["params"][side], taps[self.tap])
      )
      for side, taps in zip(_SIDES, (student, teacher), strict=True)
    }
    found, scales = {}, {}
    for side, other in zip(_SIDES, reversed(_SIDES), strict=True):
      found[side], scales[side] = contrast(
        rows[side],
        rows[other],
        variables["queue"][other],
        variables["scale"][side],
        temperature=self.temperature,
      )
    queues = {
      side: queue.pushed(variables["queue"][side], rows[side])
      for side in _SIDES
    }
    return found, {"queue": queues, "scale": scales}


def contrast(
  anchor: Float[Array, "n d"],
  positive: Float[Array, "n d"],
  negatives: Float[Array, "k d"],
  scale: Float[Array, ""],
  *,
  temperature: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """(loss, Z): noise-contrastive estimation with unit rows.

  Args:
    anchor: one side's rows.
    positive: the other side's, of the same images.
    negatives: the other side's, of past images.
    scale: Z; 0 takes the mean over these negatives.
    temperature: tau.
  """
  highest = jax.lax.Precision.HIGHEST
  own = jnp.sum(anchor * positive, -1) / temperature
  others = jnp.matmul(anchor, negatives.T, precision=highest) / temperature
  fresh = jax.lax.stop_gradient(jnp.mean(jnp.exp(others)))
  scale = jnp.where(scale > 0, scale, fresh)
  # ln of h's odds, e / (K Z).
  odds = jnp.log(scale) + jnp.log(negatives.shape[0])
  told = jax.nn.softplus(odds - own)
  fooled = jnp.sum(jax.nn.softplus(others - odds), -1)
  return jnp.mean(told + fooled), scale
