"""A teacher that ran before: its taps come from a bank, with the crops.

`--config.teacher.source=bank --config.teacher.weights=PLACE`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kd_jax import interfaces, resolve
from kd_jax.codecs.base import CodecLike
from kd_jax.data.bank import Bank
from kd_jax.types import Batch, Teacher, Variables


@dataclasses.dataclass(frozen=True)
class Source(interfaces.TeacherSource):
  """Decodes what a batch brought from the bank; no network runs.

  Attributes:
    bank: where it is.
    codec: how taps are stored.
    widths: {tap: shape of an entry}.
  """

  bank: Bank
  codec: CodecLike
  widths: tuple[tuple[str, tuple[int, ...]], ...]

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """The stored taps of the batch's own crops."""
    taps = self.codec.decode(
      frozen["teacher"], batch.teacher, dict(self.widths)
    )
    if batch.partner is not None:
      taps = self.codec.mixed(taps, batch.partner, batch.share)
    return Teacher(jax.lax.stop_gradient(taps), None)

  def stored_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Batch.teacher` holds for so many rows."""
    arrays = dict(self.bank.header.arrays)
    arrays.pop("geometry")
    if self.bank.per_image:
      arrays["corners"] = ((4,), "float32")
    return {
      name: jax.ShapeDtypeStruct((rows, *shape), np.dtype(dtype))
      for name, (shape, dtype) in arrays.items()
    }

  @property
  def stored(self) -> Bank:
    """The bank."""
    return self.bank

  @property
  def can_mix(self) -> bool:
    """If the codec stores class probabilities."""
    return self.codec.mixes

  @property
  def fingerprint(self) -> str:
    """That of the bank: of teacher, images, crops and codec."""
    return self.bank.fingerprint

  @property
  def evaluation_view(self) -> interfaces.EvaluationView:
    """As the teacher's images were prepared for evaluation."""
    seen = self.bank.header.about["seen"]
    return interfaces.EvaluationView(
      seen["interpolation"],
      seen["crop_pct"],
      seen.get("crop_mode", "center"),  # named only where it is another
    )


def load(
  name: str, weights: Any, overrides: Mapping[str, Any]
) -> tuple[Source, Variables]:
  """Opens a bank; `weights` is its place, the name plays no part.

  Raises:
    ValueError: no bank, or one without a complete pass.
  """
  del name, overrides
  if not weights:
    raise ValueError(
      "the teacher source 'bank' needs the place of one: set "
      "--config.teacher.weights=DIR, or gs://... or s3://..."
    )
  bank = Bank(str(weights))
  if not bank.num_passes:
    raise ValueError(
      f"the bank {bank.place} has no complete pass; run the config that "
      "writes it again, it goes on where it stopped"
    )
  about = bank.header.about
  codec = resolve.build("codecs", "Codec", about["codec"])
  widths = tuple((tap, tuple(w)) for tap, w in sorted(about["widths"].items()))
  return Source(bank, codec, widths), bank.constants
