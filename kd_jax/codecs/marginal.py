"""The most likely classes and their probabilities (FKD's label quantisation).

Shen & Xing, A Fast Knowledge Distillation Framework for Visual Recognition
(ECCV 2022), section 3.2: marginal smoothing spreads what is missing evenly
over the other classes, marginal re-norm scales what is there up to one. Top 1
with smoothing is FKD's 'smoothing'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd_jax.codecs import base


@dataclasses.dataclass(frozen=True)
class Codec(base.LabelCodec):
  """Stores the top k of softmax(logits / temperature).

  Attributes:
    top: k.
    recover: 'smooth' or 'renorm', how the distribution is completed.
    temperature: of the softmax.
    dtype: 'float16' (4 bytes per class with its id) or 'float32' (6).

  Raises:
    ValueError: a value that is not allowed.
  """

  top: int = 5
  recover: str = "smooth"
  temperature: float = 1.0
  dtype: str = "float16"

  def __post_init__(self) -> None:
    base.check_temperature(self.temperature)
    base.one_of("recover", self.recover, ("smooth", "renorm"))
    base.one_of("dtype", self.dtype, ("float32", "float16"))
    if self.top < 1:
      raise ValueError(f"codec.top is {self.top}; it must be at least 1")

  def arrays(self, widths: base.Widths) -> base.Arrays:
    """See `base.CodecLike`."""
    if self.top >= base.classes(widths):
      raise ValueError(
        f"codec.top is {self.top} of {base.classes(widths)} classes; use the "
        "codec 'full' to store all"
      )
    return {
      "class": ((self.top,), "uint16"),
      "probability": ((self.top,), self.dtype),
    }

  def encode(
    self, constants: Mapping[str, Array], taps: Mapping[str, Array]
  ) -> dict[str, Array]:
    """See `base.CodecLike`; the most likely class first."""
    del constants
    kept, index = jax.lax.top_k(self.probabilities(taps), self.top)
    return {
      "class": index.astype(jnp.uint16),
      "probability": kept.astype(self.dtype),
    }

  def decode(
    self,
    constants: Mapping[str, Array],
    stored: Mapping[str, Array],
    widths: base.Widths,
  ) -> dict[str, Array]:
    """See `base.CodecLike`."""
    del constants
    return self.logits(
      completed(
        stored["class"].astype(jnp.int32),
        stored["probability"].astype(jnp.float32),
        classes=base.classes(widths),
        recover=self.recover,
      )
    )


def completed(
  index: Int[Array, "n k"],
  probability: Float[Array, "n k"],
  *,
  classes: int,
  recover: str,
) -> Float[Array, "n classes"]:
  """The whole distribution of which `probability` is the top k.

  Probabilities rounded to 16 bits may sum to more than one; then nothing is
  left to spread, where the authors' code spreads a negative rest.
  """
  total = probability.sum(-1, keepdims=True)
  fill = jnp.zeros_like(total)
  if recover == "smooth":
    rest = jnp.maximum(1 - total, 0)
    fill = rest / (classes - index.shape[-1])
  else:
    probability = probability / jnp.maximum(total, 1e-12)
  whole = jnp.broadcast_to(fill, (*total.shape[:-1], classes))
  rows = jnp.arange(len(index))[:, None]
  return whole.at[rows, index].set(probability)
