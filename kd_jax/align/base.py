"""What every aligner offers, and the rules they share.

An aligner is one file with a frozen dataclass `Aligner` whose fields are its
configuration. It makes student and teacher features comparable, channel by
channel (the last axis).

A student wider than the teacher (width d > D) gets the D aligned components
repeated cyclically: channel i is component i mod D. No student channel is
left without a target, the leading components are the ones doubled, and
elementwise target transforms (`pts`) commute with the repetition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float

Artifact = Mapping[str, Array]
"""`Basis.artifact(width)`; empty for aligners that need no basis."""


Fitted = Mapping[str, Any]
"""The same on the host, all directions of it, and 'rows', their number."""


class AlignerLike(Protocol):
  """The interface of an `Aligner`; features are (..., channels).

  Attributes:
    needs_basis: whether `teacher` reads an artifact.
    needs_whole: whether that has all directions, not only as many as the
      student has channels; it is then what `refined` makes of it.
  """

  needs_basis: ClassVar[bool]
  needs_whole: ClassVar[bool]

  def refined(self, artifact: Fitted, widths: Sequence[int]) -> Fitted:
    """What `teacher` reads instead, of the same names and shapes; once.

    Args:
      artifact: fitted.
      widths: of the teachers whose features stand side by side.
    """
    ...

  def init(
    self, key: Array, student_dim: int, teacher_dim: int
  ) -> dict[str, Any]:
    """Trainable parameters; {} if there are none."""
    ...

  def student(
    self, params: Mapping[str, Any], feature: Float[Array, "*n s"]
  ) -> Float[Array, "*n k"]:
    """The student's side of the comparison."""
    ...

  def teacher(
    self, artifact: Artifact, feature: Float[Array, "*n d"], width: int
  ) -> Float[Array, "*n k"]:
    """The target; `width` is the student's number of channels."""
    ...


class TeacherSide:
  """Base of aligners that leave the student alone and learn nothing."""

  needs_basis: ClassVar[bool] = False
  needs_whole: ClassVar[bool] = False

  def refined(self, artifact: Fitted, widths: Sequence[int]) -> Fitted:
    """As it is."""
    del widths
    return artifact

  def init(
    self, key: Array, student_dim: int, teacher_dim: int
  ) -> dict[str, Any]:
    """No parameters."""
    del key, student_dim, teacher_dim
    return {}

  def student(
    self, params: Mapping[str, Any], feature: Float[Array, "*n s"]
  ) -> Float[Array, "*n s"]:
    """The feature as it is."""
    del params
    return feature


def cycle(
  components: Float[Array, "*n d"], width: int
) -> Float[Array, "*n width"]:
  """The first `width` components, starting again when they run out."""
  dim = components.shape[-1]
  if width == dim:
    return components
  return components[..., jnp.arange(width) % dim]


def take_basis(
  artifact: Artifact, feature: Float[Array, "*n d"], width: int
) -> tuple[Float[Array, "d k"], Float[Array, " k"]]:
  """The leading min(width, d) directions and their singular values.

  Raises:
    ValueError: no basis, one of another teacher width, or too few columns.
  """
  check_artifact(artifact, feature)
  needed = min(width, feature.shape[-1])
  basis = artifact["basis"]
  if basis.shape[1] < needed:
    raise ValueError(
      f"the basis holds {basis.shape[1]} directions and the student has "
      f"{width} channels; use Basis.artifact({width})"
    )
  return basis[:, :needed], artifact["singular_values"][:needed]


def check_artifact(artifact: Artifact, feature: Float[Array, "*n d"]) -> None:
  """Whether `artifact` belongs to features of this width.

  Raises:
    ValueError: no basis, or the basis of a teacher of another width.
  """
  missing = {"mean", "basis", "singular_values", "channel_variance"}
  missing -= set(artifact)
  if missing:
    raise ValueError(
      f"this aligner needs a fitted basis; {sorted(missing)} missing from "
      f"the artifact {sorted(artifact)}. Run the fit_svd task first."
    )
  if artifact["mean"].shape[0] != feature.shape[-1]:
    raise ValueError(
      f"the basis was fitted on {artifact['mean'].shape[0]} channels and the "
      f"teacher feature has {feature.shape[-1]}; fit it on this teacher"
    )
