"""KDEP's features: SVD, power-temperature scaling, a few bits per direction.

z = (f - mean) V[:, :width], y = sign(z) |z / T|^(1/n). What comes back is
f' = mean + z' V^T, whose projections on the same directions are z': aligners
with the bank's basis see what they would have seen, up to the rounding. The
leading directions serve any student of at most `width` channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import pts, svd
from kd_jax.codecs import base

_MARGIN = 1.25  # over the largest value of the sample; beyond it, clipped
_FP8 = 448.0  # the largest float8_e4m3fn
_BASIS = ("mean", "basis", "singular_values", "channel_variance")


@dataclasses.dataclass(frozen=True)
class Codec(base.CodecBase):
  """Stores the leading directions of the tap 'feature'.

  Attributes:
    width: number of directions, at least the student's channels.
    dtype: 'float16' (of y), 'int8' (of y, a scale per direction) or
      'float8_e4m3fn' (of z, a scale per direction: the cube root of power 3
      makes its relative error three times smaller).
    temperature: T.
    power: n.

  Raises:
    ValueError: a value that is not allowed.
  """

  taps = ("feature",)
  needs_basis: ClassVar[bool] = True

  width: int = 512
  dtype: str = "int8"
  temperature: float = 0.1
  power: float = 3.0

  def __post_init__(self) -> None:
    base.one_of("dtype", self.dtype, ("float16", "int8", "float8_e4m3fn"))
    if self.width < 1 or self.temperature <= 0 or self.power < 1:
      raise ValueError(
        "codec needs width >= 1, temperature > 0 and power >= 1; got "
        f"width={self.width}, temperature={self.temperature}, "
        f"power={self.power}"
      )

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`; float8 travels as uint8."""
    (dim,) = widths["feature"]
    if self.width > dim:
      raise ValueError(
        f"codec.width is {self.width}; the teacher's feature has {dim} "
        "channels, and no more directions"
      )
    dtype = "uint8" if self.dtype.startswith("float8") else self.dtype
    return {"directions": ((self.width,), dtype)}

  def constants(
    self, artifact: Mapping[str, Any], sample: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """The basis, and a scale per direction."""
    kept = {name: np.asarray(artifact[name], np.float32) for name in _BASIS}
    if kept["basis"].shape[1] < self.width:
      raise ValueError(
        f"codec.width is {self.width}; the basis has "
        f"{kept['basis'].shape[1]} directions"
      )
    kept["basis"] = kept["basis"][:, : self.width]
    kept["singular_values"] = kept["singular_values"][: self.width]
    values = np.asarray(self._values(kept, sample["feature"]))
    scale = _MARGIN * np.abs(values).max(0)
    return {**kept, "scale": np.maximum(scale, 1e-12).astype(np.float32)}

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    values = self._values(constants, taps["feature"])
    if self.dtype == "float16":
      limit = float(jnp.finfo(jnp.float16).max)
      rounded = jnp.clip(values, -limit, limit).astype(jnp.float16)
      return {"directions": rounded}
    share = jnp.clip(values / constants["scale"], -1, 1)
    if self.dtype == "int8":
      return {"directions": jnp.round(127 * share).astype(jnp.int8)}
    small = (_FP8 * share).astype(jnp.float8_e4m3fn)
    return {"directions": jax.lax.bitcast_convert_type(small, jnp.uint8)}

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    del widths
    found = stored["directions"]
    if self.dtype == "float16":
      z = self._unscaled(found.astype(jnp.float32))
    elif self.dtype == "int8":
      share = found.astype(jnp.float32) / 127
      z = self._unscaled(share * constants["scale"])
    else:
      small = jax.lax.bitcast_convert_type(found, jnp.float8_e4m3fn)
      z = small.astype(jnp.float32) / _FP8 * constants["scale"]
    product = jnp.matmul(
      z, constants["basis"].T, precision=jax.lax.Precision.HIGHEST
    )
    return {"feature": constants["mean"] + product}

  def _values(
    self,
    constants: Mapping[str, Array | np.ndarray],
    feature: Float[Array | np.ndarray, "n d"],
  ) -> Float[Array, "n width"]:
    """What is rounded: y, or z in front of a floating point format."""
    wide = jnp.asarray(feature, jnp.float32)
    z = svd.project(wide, constants["mean"], constants["basis"])
    if self.dtype.startswith("float8"):
      return z
    return pts.power_temperature(z, self.temperature, self.power)

  def _unscaled(self, y: Float[Array, "n width"]) -> Float[Array, "n width"]:
    """The inverse of power-temperature scaling."""
    return self.temperature * jnp.sign(y) * jnp.abs(y) ** self.power
