"""What every codec offers.

A codec is one file with a frozen dataclass `Codec` whose fields are its
configuration. `encode` turns teacher taps into small arrays, `decode` turns
them back into the same taps, as far as what is lost allows; losses do not
notice the difference. Rows are crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kd_jax.types import Teacher

Arrays = Mapping[str, tuple[tuple[int, ...], str]]
"""{array: (shape of a crop's entry, dtype)}."""
Widths = Mapping[str, tuple[int, ...]]
"""{tap: shape of a crop's entry}."""

# The logarithm of a probability of zero stays finite; smaller numbers are zero
# where subnormal ones are flushed.
TINY = 1e-37


class CodecLike(Protocol):
  """The interface of a `Codec`.

  Attributes:
    needs_basis: whether `constants` reads the basis of the tap 'feature'.
    width: how many directions of that basis it reads.
    mixes: whether `mixed` gives the taps of mixed crops.
    per_image: whether entries belong to whole images, not to crops; `decode`
      then finds the crops' 'corners' among the stored arrays, (n, 4), top,
      left, bottom, right as shares of the image.
    together: records that are read at once, under one checksum.
  """

  needs_basis: ClassVar[bool]
  width: int
  per_image: ClassVar[bool]
  mixes: ClassVar[bool]
  together: ClassVar[int]

  @property
  def taps(self) -> tuple[str, ...]:
    """Teacher taps that are stored."""
    ...

  def collect(self, teacher: Teacher) -> Mapping[str, Array]:
    """What is stored, of what a teacher says."""
    ...

  def arrays(self, widths: Widths) -> Arrays:
    """What is stored of a crop.

    Raises:
      ValueError: taps of these shapes cannot be stored so.
    """
    ...

  def bases(self, widths: Widths) -> Mapping[str, int]:
    """{tap: directions} of taps whose bases `constants` reads by name."""
    ...

  def constants(
    self, artifact: Mapping[str, Any], sample: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """What decoding needs, from the teacher's basis and some of its taps.

    Args:
      artifact: of the tap 'feature' if `needs_basis`; or {tap: of it} of
        `bases`.
      sample: taps of some crops.
    """
    ...

  def lost(
    self, constants: Mapping[str, np.ndarray], sample: Mapping[str, np.ndarray]
  ) -> Mapping[str, tuple[float, float]]:
    """What does not come back of taps, told before anything is written.

    Returns:
      {tap: (share of its variance, share that is beyond its directions)}.
    """
    ...

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """(n, ...) taps -> {array: (n, ...)}."""
    ...

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: Widths,
  ) -> dict[str, Array]:
    """{array: (n, ...)} -> (n, ...) taps."""
    ...

  def mixed(
    self, taps: Mapping[str, Array], partner: Array, share: Array
  ) -> dict[str, Array]:
    """The taps of mixed crops, where `mixes`."""
    ...


class CodecBase:
  """Base of all codecs: they store taps as they are, of every crop."""

  mixes: ClassVar[bool] = False
  needs_basis: ClassVar[bool] = False
  width: int = 0
  per_image: ClassVar[bool] = False
  together: ClassVar[int] = 16
  taps: tuple[str, ...] = ()

  def collect(self, teacher: Teacher) -> Mapping[str, Array]:
    """The taps."""
    return {name: teacher.taps[name] for name in self.taps}

  def mixed(
    self, taps: Mapping[str, Array], partner: Array, share: Array
  ) -> dict[str, Array]:
    """To be written where `mixes`."""
    raise NotImplementedError

  def bases(self, widths: Widths) -> Mapping[str, int]:
    """None."""
    del widths
    return {}

  def constants(
    self, artifact: Mapping[str, Any], sample: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """None."""
    del artifact, sample
    return {}

  def lost(
    self, constants: Mapping[str, np.ndarray], sample: Mapping[str, np.ndarray]
  ) -> Mapping[str, tuple[float, float]]:
    """Nothing is told."""
    del constants, sample
    return {}


def share_lost(
  want: Float[Array, "*n d"], found: Float[Array, "*n d"]
) -> float:
  """Squared error over the variance about the mean of all rows."""
  rows = want.reshape(-1, want.shape[-1])
  off = found.reshape(rows.shape) - rows
  spread = jnp.sum(jnp.square(rows - rows.mean(0)))
  return float(jnp.sum(jnp.square(off)) / spread)


def mixed_logits(
  logits: Float[Array, "n c"],
  partner: Int[Array, " n"],
  share: Float[Array, ""],
  temperature: float,
) -> dict[str, Array]:
  """The tap whose probabilities are mixed as the images were."""
  q = jax.nn.softmax(logits / temperature)
  mixed = (1 - share) * q + share * q[partner]
  return {"logits": temperature * jnp.log(jnp.maximum(mixed, TINY))}


class LabelCodec(CodecBase):
  """Base of codecs that store class probabilities.

  The tap 'logits' comes back as temperature x log(probability): its softmax
  at that temperature is what was stored.
  """

  taps = ("logits",)
  temperature: float = 1.0
  mixes: ClassVar[bool] = True

  def mixed(
    self, taps: Mapping[str, Array], partner: Array, share: Array
  ) -> dict[str, Array]:
    """The taps of mixed crops: probabilities are mixed linearly, as by FKD."""
    return mixed_logits(taps["logits"], partner, share, self.temperature)

  def probabilities(self, taps: Mapping[str, Array]) -> Float[Array, "n c"]:
    """softmax(logits / temperature)."""
    logits = taps["logits"]
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.softmax(wide / self.temperature)

  def logits(self, probabilities: Float[Array, "n c"]) -> dict[str, Array]:
    """The tap that these probabilities stand for."""
    kept = jnp.maximum(probabilities, TINY)
    return {"logits": self.temperature * jnp.log(kept)}


def check_temperature(temperature: float) -> None:
  """Raises ValueError unless it is positive."""
  if temperature <= 0:
    raise ValueError(f"temperature is {temperature}; it must be positive")


def one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
  """Raises ValueError unless `value` is one of `allowed`."""
  if value not in allowed:
    raise ValueError(f"codec.{field} is {value!r}; allowed: {list(allowed)}")


def classes(widths: Widths) -> int:
  """Number of classes of the teacher; ids are stored in 16 bits.

  Raises:
    ValueError: more than fit.
  """
  (count,) = widths["logits"]
  if count > 2**16:
    raise ValueError(
      f"the teacher has {count} classes; class ids are stored in 16 bits"
    )
  return count
