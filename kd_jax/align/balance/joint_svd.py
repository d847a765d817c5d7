"""One compact target of several teachers: the SVD of all, side by side.

KDEP (CVPR 2022) brings one teacher to the student's width by its principal
components. Here the features of all teachers are standardised and put side by
side, and the principal components are those of the whole: directions that
several teachers share come first, and the student needs no head.

The loss term of this has no name of a teacher: `config.losses.feature`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from kd_jax.align import base, svd
from kd_jax.align.balance import turned

KINDS = ("channel", "teacher")


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """As many joint components as the student is wide.

  Attributes:
    standard: what gets variance 1: every 'channel', or every 'teacher' in the
      mean of its channels.

  Raises:
    ValueError: another kind.
  """

  standard: str = "channel"
  needs_basis: ClassVar[bool] = True
  needs_whole: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if self.standard not in KINDS:
      raise ValueError(
        f"align.standard is {self.standard!r}; it can be one of {list(KINDS)}"
      )

  def refined(
    self, artifact: base.Fitted, widths: Sequence[int]
  ) -> base.Fitted:
    """The directions of the standardised features, with the scales in them.

    Args:
      artifact: of the raw features, side by side.
      widths: of the teachers, in order.
    """
    basis, variances = turned.spectrum(artifact)
    scale = self._scale(np.asarray(artifact["channel_variance"]), widths)
    root = scale[:, None] * basis * np.sqrt(variances)
    values, vectors = scipy.linalg.eigh(root @ root.T)
    vectors = vectors[:, ::-1]
    largest = np.abs(vectors).argmax(0)
    vectors *= np.sign(vectors[largest, np.arange(len(scale))])
    energy = np.maximum(values[::-1], 0) * (float(artifact["rows"]) - 1)
    return {
      **artifact,
      "basis": (scale[:, None] * vectors).astype(np.float32),
      "singular_values": np.sqrt(energy).astype(np.float32),
    }

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """The leading joint components, repeated cyclically when width > d."""
    basis, _ = base.take_basis(artifact, feature, width)
    return base.cycle(svd.project(feature, artifact["mean"], basis), width)

  def _scale(
    self, variance: Float[np.ndarray, " d"], widths: Sequence[int]
  ) -> Float[np.ndarray, " d"]:
    """What every channel is multiplied by, float64."""
    found = variance.astype(np.float64)
    if self.standard == "teacher":
      ends = np.cumsum(widths)[:-1]
      parts = [np.full(len(p), p.mean()) for p in np.split(found, ends)]
      found = np.concatenate(parts)
    kept = found > 1e-12 * found.max()
    return np.where(kept, np.where(kept, found, 1) ** -0.5, 0)
