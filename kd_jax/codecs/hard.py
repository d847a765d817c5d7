"""The most likely class alone (FKD's 'hard')."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kd_jax.codecs import base


@dataclasses.dataclass(frozen=True)
class Codec(base.LabelCodec):
  """2 bytes per crop; comes back as a one-hot distribution."""

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`."""
    base.classes(widths)
    return {"class": ((), "uint16")}

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    del constants
    return {"class": jnp.argmax(taps["logits"], -1).astype(jnp.uint16)}

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    del constants
    index = stored["class"].astype(jnp.int32)
    return self.logits(jax.nn.one_hot(index, base.classes(widths)))
