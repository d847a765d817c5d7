"""What UNIC, Theia and RADIO share: a summary, patches, the loss of each image.

These distil foundation models into one student, often several at once
(`config.teachers`, each with a method of its own), and look at one vector per
image and at the patches. A loss is known for every image, so that teachers can
be dropped image by image (`methods/balance/dropping.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.methods import one_phase, queue
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Teacher, Variables

SUMMARY, PATCHES = "summary", "patches"


@dataclasses.dataclass(frozen=True)
class PerImage(one_phase.OnePhase):
  """Terms 'summary' and 'patches'; to be written: `per_image`.

  Attributes:
    terms: 'summary' and 'patches', and 'kl' and 'ce' beside them.
    token: tap of both networks, a vector per image.
    student: tap, a map or tokens.
    teacher: tap, a map or tokens.
  """

  OWN: ClassVar[tuple[str, ...]] = (SUMMARY, PATCHES)

  terms: tuple[str, ...] = OWN
  token: str = "pooled"
  student: str = "stage4"
  teacher: str = "stage4"

  def per_image(
    self, variables: Variables, student: Taps, teacher: Taps
  ) -> Mapping[str, Float[Array, " n"]]:
    """The own terms of every image.

    Args:
      variables: the method's.
      student: taps that `reads` names, float32 or wider.
      teacher: the same.
    """
    raise NotImplementedError

  def pair(self, term: str) -> tuple[str, str]:
    """Taps of (student, teacher) that a term compares in the end."""
    if term == SUMMARY:
      return self.token, self.token
    return self.student, self.teacher

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector and a map of each."""
    ours, theirs = zip(*(self.pair(term) for term in self.own), strict=True)
    return ours, theirs

  def widths(
    self, term: str, student: Specs, teacher: Specs
  ) -> tuple[int, int]:
    """Channels of what a term compares.

    Raises:
      ValueError: patches of taps that are no maps, or a summary that is.
    """
    ours, theirs = self.pair(term)
    for tap, side, specs in (
      (ours, "student", student),
      (theirs, "teacher", teacher),
    ):
      if term == PATCHES:
        one_phase.check_maps(tap, side, specs)
      elif tap not in specs or len(specs[tap].shape) != 2:
        have = sorted(k for k, v in specs.items() if len(v.shape) == 2)
        raise ValueError(
          f"method.token is {tap!r}, and the {side} has no such vector per "
          f"image; it offers {have}"
        )
    return student[ours].shape[-1], teacher[theirs].shape[-1]

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over the images."""
    del batch
    found = self.per_image(variables, student, teacher)
    return {term: jnp.mean(loss) for term, loss in found.items()}, {}

  @property
  def image_terms(self) -> tuple[str, ...]:
    """All of its own."""
    return self.own

  def image_losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> Mapping[str, Array]:
    """See `per_image`."""
    del batch
    ours, theirs = self.reads()
    return self.per_image(
      variables,
      {tap: one_phase.wide(taps[tap]) for tap in ours},
      {tap: one_phase.wide(teacher.taps[tap]) for tap in theirs},
    )


def rows(x: Float[Array, "n *p d"]) -> Float[Array, "n p d"]:
  """A vector per image as one row, a map or tokens as a row per patch."""
  return x[:, None] if x.ndim == 2 else maps.as_tokens(x)


def away(
  x: Float[Array, "*n d"], target: Float[Array, "*n d"]
) -> Float[Array, "*n"]:
  """1 - cosine of the rows."""
  return 1 - jnp.sum(queue.unit(x) * queue.unit(target), -1)


def smooth(
  x: Float[Array, "*n d"], target: Float[Array, "*n d"]
) -> Float[Array, "*n"]:
  """Smooth L1 (beta 1), mean over the channels."""
  return jnp.mean(optax.huber_loss(x, target), -1)
