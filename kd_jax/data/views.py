"""What batches, the step and the report know of how images are prepared."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from jaxtyping import UInt8

from kd_jax.types import Record

Draw = Callable[[int], np.random.Generator]
"""Crop number -> its source of randomness."""


class Views:
  """Base of frozen dataclasses that turn a record into what a network sees.

  `preprocess.Preprocess` is for labels of whole images, `dense.Dense` for
  those of pixels. Attributes that mean nothing to one of them are constants.

  Attributes:
    image_size: side of the square views, pixels.
    interpolation: of the evaluation view.
    crop_pct: share of the short side that the evaluation view keeps.
    crop_mode: of the evaluation view.
    train_interpolation: of the training view.
    augment: kind of the training view.
    num_crops: training views of every record.
    canvas: 0, or the side of the canvases on which whole images travel to the
      device, which cuts the views.
  """

  if TYPE_CHECKING:
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

  image_size: int
  interpolation: str
  crop_pct: float
  crop_mode: str
  train_interpolation: str
  augment: str
  num_crops: int
  canvas: int

  @property
  def canvas_size(self) -> tuple[int, int]:
    """Height and width of the largest images that the network sees."""
    return self.image_size, self.image_size

  def label_specs(self, rows: int) -> Any:
    """Shapes and dtypes of `Batch.label` of so many rows."""
    return jax.ShapeDtypeStruct((rows,), np.int32)

  def described(self) -> dict[str, Any]:
    """What the summary of a run says of them."""
    short = int(self.image_size / self.crop_pct)
    squashed = ", squashed" if self.crop_mode == "squash" else ""
    view = f"{self.interpolation}, {short} -> {self.image_size}{squashed}"
    return {
      "image_size": self.image_size,
      "evaluation_view": view,
      "interpolation": self.interpolation,
      "crop_pct": self.crop_pct,
      "crop_mode": self.crop_mode,
    }

  @property
  def oriented(self) -> bool:
    """Whether the images of a batch must all be landscape or all portrait."""
    return False

  def of_batch(self, rng: Callable[[], np.random.Generator]) -> Views:
    """The views of all images of one batch.

    Args:
      rng: makes the source of randomness that all of them share; that takes
        longer than a small image does.
    """
    del rng
    return self

  @property
  def reduces(self) -> bool:
    """Whether `reduction` may be more than 1."""
    return False

  def reduction(self, size: tuple[int, int], rng: Draw) -> int:
    """What the sides of a JPEG may be divided by before its training views.

    Args:
      size: height and width of the image, pixels.
      rng: as `train` will get it.
    """
    del size, rng
    return 1

  def train(self, record: Record, rng: Draw) -> Mapping[str, np.ndarray]:
    """The training views of one record.

    Args:
      record: with pixels or encoded bytes.
      rng: crop number -> its source of randomness.

    Returns:
      {'image': (m, s, s, 3) uint8}, and arrays that belong to the views:
      'label' if it is not the record's own, 'geometry'.
    """
    raise NotImplementedError

  def eval(self, record: Record) -> UInt8[np.ndarray, "s s 3"]:
    """The view without randomness."""
    raise NotImplementedError

  def others(self, record: Record) -> Mapping[str, UInt8[np.ndarray, "t t 3"]]:
    """The same view in other sizes, for `Batch.views`; {} if there are none."""
    del record
    return {}

  @property
  def other_cuts(self) -> Mapping[str, tuple[int, str]]:
    """{name: (side, interpolation)} of them."""
    return {}

  def stated(self) -> dict[str, Any]:
    """{field: value}, as fingerprints and banks tell views apart."""
    return dataclasses.asdict(self)

  def fingerprint(self) -> str:
    """16 hex digits that identify the settings."""
    text = repr(sorted(self.stated().items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
