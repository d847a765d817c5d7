"""RADIO: summaries by their angle, patches by squares or as Theia has them.

Ranzinger et al., CVPR 2024 (AM-RADIO, arXiv:2312.06709), and what followed
(RADIOv2.5, arXiv:2412.07679; PHI-S, arXiv:2410.01680). An MLP of two layers for
each teacher, the adaptor, stands on the student's summary and another on its
patches:

  summary  1 - cosine of the teacher's
  patches  'mse': squared error, mean over patches and channels, of the
           teacher's turned and scaled by PHI-S (RADIOv2.5);
           'cosine_l1': .9 (1 - cosine) + .1 smooth L1 of every patch (AM-RADIO)

Both weigh 1. PHI-S, in `align/balance/phi_s.py`, is verified against the
figures of the released functions; the training code was not released, and the
rest is checked against NumPy.

Ours: the adaptor is linear, LayerNorm, GELU, linear; the student's map comes to
the teacher's grid behind it; `align` may name any other balance. Teachers at
several resolutions in one training are `config.teachers.NAME.preprocess` and
phases. Without a summary of its own a network gives the tap 'pooled'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import resolve
from kd_jax.align import maps
from kd_jax.align.base import AlignerLike
from kd_jax.methods.recent import lightly_dense, per_image
from kd_jax.types import Array, Artifact, Specs, Taps, Variables

LOSSES = ("mse", "cosine_l1")
COSINE = 0.9  # its share in 'cosine_l1'


@dataclasses.dataclass(frozen=True)
class Method(per_image.PerImage):
  """Cosine of summaries, and balanced patches.

  Attributes:
    loss: of patches, one of `LOSSES`.
    align: {'name': file of kd_jax/align, ...its fields}: what is made of the
      teacher's patches. Its own head is not used.
    hidden: width of the middle of the adaptors.

  Raises:
    ValueError: a value that is not allowed.
  """

  loss: str = "mse"
  align: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {"name": "phi_s"}
  )
  hidden: int = 2048

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("hidden")
    if self.loss not in LOSSES:
      raise ValueError(f"method.loss is {self.loss!r}; it can be {LOSSES}")

  @property
  def aligner(self) -> AlignerLike:
    """The aligner that `align` names."""
    return resolve.build("align", "Aligner", self.align)

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """The teacher's map, if the aligner reads its statistics."""
    read = per_image.PATCHES in self.own and self.aligner.needs_basis
    return (self.teacher,) if read else ()

  def refined(self, tap: str, artifact: Artifact, teacher: Specs) -> Artifact:
    """As the aligner says."""
    widths: Sequence[int] = [teacher[tap].shape[-1]]
    return self.aligner.refined(artifact, widths)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """An adaptor for each term."""
    params = {}
    for place, term in enumerate(self.own):
      ours, theirs = self.widths(term, student, teacher)
      own = jax.random.fold_in(key, place)
      adaptor = lightly_dense.Head(theirs, self.hidden)
      params[term] = adaptor.init(own, jnp.zeros((1, ours)))["params"]
    return {"params": params}

  def per_image(
    self, variables: Variables, student: Taps, teacher: Taps
  ) -> dict[str, Float[Array, " n"]]:
    """See the top of this file."""
    found = {}
    for term in self.own:
      ours, theirs = self.pair(term)
      target = teacher[theirs]
      adaptor = lightly_dense.Head(target.shape[-1], self.hidden)
      own = {"params": variables["params"][term]}
      x = jnp.asarray(adaptor.apply(own, student[ours]))
      if term == per_image.SUMMARY:
        found[term] = per_image.away(x, target)
      else:
        artifact = variables.get("artifact", {}).get(theirs, {})
        found[term] = self._patches(artifact, x, target)
    return found

  def _patches(
    self, artifact: Variables, x: Array, target: Array
  ) -> Float[Array, " n"]:
    """Mean over the patches of an image."""
    target = maps.as_map(target)
    target = self.aligner.teacher(artifact, target, target.shape[-1])
    x = lightly_dense.resized(maps.as_map(x), target.shape[1:3])
    if self.loss == "mse":
      return jnp.mean(jnp.square(x - target), (1, 2, 3))
    away, smooth = per_image.away(x, target), per_image.smooth(x, target)
    return jnp.mean(COSINE * away + (1 - COSINE) * smooth, (1, 2))
