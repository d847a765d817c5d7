"""Dense maps: the leading principal directions of every position, in 8 bits.

z = (f - mean) V[:, :k] at every position of the tap, with a basis over all
positions of all images as `align.basis` fits it. z over its scale, s in
[-1, 1], is stored as sign(s) |s|^(1/power) in 127 steps. What comes back is
f' = mean + z' V^T: the teacher's own space, so that every method that reads
the running teacher's map reads this one. That costs a product of k x channels
per position, less than a hundredth of a forward pass of ResNet-50, and
projecting f' on the same directions gives z' again.

Prefix tokens (class, registers) are left out; tokens come back as a map. The
summary is a tap of its own ('feature'), with a basis of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import maps, svd
from kd_jax.codecs import base
from kd_jax.interfaces import computed
from kd_jax.types import Teacher

_MARGIN = 1.25  # over the largest value of the sample; beyond it, clipped
_PARTS = ("mean", "basis", "singular_values", "channel_variance")
_DTYPES = ("float32", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class Codec(base.CodecBase):
  """Stores maps, and vectors beside them.

  Attributes:
    directions: {tap: how many directions are stored}; 0 stores all.
    dtype: of an entry: 'int8' (with a scale per direction), 'float16' or
      'float32'.
    power: of the scale's inverse for 'int8'; 1 has equal steps, larger ones
      have finer steps near 0, where most values are.

  Raises:
    ValueError: a value that is not allowed.
  """

  # A record is as large as many vectors: each is read by itself.
  together: ClassVar[int] = 1

  directions: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"stage4": 256}
  )
  dtype: str = "int8"
  power: float = 2.0

  def __post_init__(self) -> None:
    base.one_of("dtype", self.dtype, _DTYPES)
    if self.power < 1:
      raise ValueError(f"codec.power is {self.power}; it must be at least 1")
    wrong = {k: n for k, n in self.directions.items() if not _count(n)}
    if wrong or not self.directions:
      raise ValueError(
        f"codec.directions is {dict(self.directions)}; it maps taps to how "
        "many directions are stored of each, 0 for all: "
        "--config.bank.codec.directions=\"{'stage4': 256}\""
      )

  @computed
  def taps(self) -> tuple[str, ...]:
    """Those that have directions."""
    return tuple(sorted(self.directions))

  def collect(self, teacher: Teacher) -> Mapping[str, Array]:
    """The taps; tokens as maps."""
    found = super().collect(teacher)
    return {k: x if x.ndim == 2 else maps.as_map(x) for k, x in found.items()}

  def bases(self, widths: base.Widths) -> dict[str, int]:
    """{tap: directions that are stored}."""
    return {tap: self.directions[tap] or widths[tap][-1] for tap in self.taps}

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`."""
    for tap, kept in self.bases(widths).items():
      if kept > widths[tap][-1]:
        raise ValueError(
          f"codec.directions.{tap} is {kept}; the teacher's tap has "
          f"{widths[tap][-1]} channels, and no more directions"
        )
    return {
      tap: ((*widths[tap][:-1], kept), self.dtype)
      for tap, kept in self.bases(widths).items()
    }

  def constants(
    self,
    artifact: Mapping[str, Any],
    sample: Mapping[str, np.ndarray],
  ) -> dict[str, np.ndarray]:
    """{'tap/mean': ...} of every tap: its basis, and a scale per direction.

    The scales are taken from every other crop of the sample, so that `lost`
    can be told on crops that they were not taken from.
    """
    found = {}
    for tap in self.taps:
      own = {k: np.asarray(artifact[tap][k], np.float32) for k in _PARTS}
      own["basis"] = own["basis"][:, : self._kept(tap, own["basis"])]
      own["singular_values"] = own["singular_values"][: own["basis"].shape[1]]
      z = np.asarray(_projected(own, sample[tap][::2]))
      largest = np.abs(z).reshape(-1, z.shape[-1]).max(0)
      own["scale"] = np.maximum(_MARGIN * largest, 1e-12).astype(np.float32)
      found |= {f"{tap}/{name}": array for name, array in own.items()}
    return found

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    found = {}
    for tap in self.taps:
      own = _of(constants, tap)
      z = _projected(own, taps[tap].astype(jnp.float32))
      if self.dtype == "int8":
        share = jnp.clip(z / own["scale"], -1, 1)
        even = jnp.sign(share) * jnp.abs(share) ** (1 / self.power)
        found[tap] = jnp.round(127 * even).astype(jnp.int8)
      else:
        limit = float(jnp.finfo(self.dtype).max)
        found[tap] = jnp.clip(z, -limit, limit).astype(self.dtype)
    return found

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """See `base.CodecLike`; float32."""
    del widths
    found = {}
    for tap in self.taps:
      own, z = _of(constants, tap), stored[tap].astype(jnp.float32)
      if self.dtype == "int8":
        even = z / 127
        z = jnp.sign(even) * jnp.abs(even) ** self.power * own["scale"]
      found[tap] = _back(own, z)
    return found

  def lost(
    self,
    constants: Mapping[str, np.ndarray],
    sample: Mapping[str, np.ndarray],
  ) -> dict[str, tuple[float, float]]:
    """See `base.CodecLike`, on crops that no scale was taken from."""
    held = {tap: jnp.asarray(sample[tap][1::2]) for tap in self.taps}
    known = {name: jnp.asarray(array) for name, array in constants.items()}
    back = self.decode(known, self.encode(known, held), {})
    found = {}
    for tap, x in held.items():
      own = _of(known, tap)
      bare = _back(own, _projected(own, x))
      found[tap] = base.share_lost(x, back[tap]), base.share_lost(x, bare)
    return found

  def _kept(self, tap: str, basis: np.ndarray) -> int:
    return self.directions[tap] or basis.shape[0]


def _count(number: object) -> bool:
  return isinstance(number, int) and number >= 0


def _of(constants: Mapping[str, Any], tap: str) -> dict[str, Any]:
  start = f"{tap}/"
  return {
    name.removeprefix(start): array
    for name, array in constants.items()
    if name.startswith(start)
  }


def _projected(
  own: Mapping[str, Any], x: Float[Array | np.ndarray, "*n d"]
) -> Float[Array, "*n k"]:
  return svd.project(jnp.asarray(x, jnp.float32), own["mean"], own["basis"])


def _back(
  own: Mapping[str, Any], z: Float[Array, "*n k"]
) -> Float[Array, "*n d"]:
  product = jnp.matmul(z, own["basis"].T, precision=jax.lax.Precision.HIGHEST)
  return own["mean"] + product
