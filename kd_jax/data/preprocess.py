"""From a record to the uint8 image that a model sees."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from kd_jax.data import crops
from kd_jax.data.decode import decode
from kd_jax.types import Record

Pixels = UInt8[np.ndarray, "s s 3"]


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """What happens to an image; one size for training and evaluation.

  Attributes:
    image_size: side of the square result, pixels.
    interpolation: 'bilinear' or 'bicubic', antialiased as in PIL.
    crop_pct: evaluation resizes the short side to image_size / crop_pct.
    augment: training view; 'none' is the evaluation view, 'crop' is a random
      resized crop, flip, colour jitter and lighting, 'shift' moves the
      evaluation view (for digits, which must not be flipped).
    scale: 'crop': area range, as a share of the image.
    ratio: 'crop': range of width / height.
    hflip: 'crop': probability of mirroring.
    color_jitter: 'crop': brightness, contrast, saturation strengths.
    lighting: 'crop': standard deviation of the PCA noise; 0 is none.
    shift: 'shift': largest move, pixels of the result.

  Raises:
    ValueError: a value is outside what is allowed.
  """

  image_size: int = 224
  interpolation: str = "bicubic"
  crop_pct: float = 0.875
  augment: str = "crop"
  scale: tuple[float, float] = (0.08, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  hflip: float = 0.5
  color_jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)
  lighting: float = 0.0
  shift: int = 0

  def __post_init__(self):
    for name in ("scale", "ratio", "color_jitter"):
      # Configs hold lists; the dataclass must stay hashable.
      object.__setattr__(self, name, tuple(getattr(self, name)))
    _check(self)

  def fingerprint(self) -> str:
    """16 hex digits that identify the settings."""
    text = repr(sorted(dataclasses.asdict(self).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def train(self, record: Record, rng: np.random.Generator) -> Pixels:
    """The augmented (s, s, 3) uint8 image.

    Raises:
      ValueError: the record's image cannot be decoded.
    """
    return AUGMENTS[self.augment](self, pixels(record), rng)

  def eval(self, record: Record) -> Pixels:
    """The central (s, s, 3) uint8 image.

    Raises:
      ValueError: the record's image cannot be decoded.
    """
    return _center(self, pixels(record))


def pixels(record: Record) -> UInt8[np.ndarray, "h w 3"]:
  """The record's image, decoded where it is still encoded.

  Raises:
    ValueError: it cannot be decoded.
  """
  image = record["image"]
  if isinstance(image, bytes):
    return decode(image, f"record {record['id']}")
  return image


def _center(p: Preprocess, image: np.ndarray) -> Pixels:
  return crops.center(
    image, p.image_size, crop_pct=p.crop_pct, interpolation=p.interpolation
  )


def _none(p: Preprocess, image: np.ndarray, _: np.random.Generator) -> Pixels:
  return _center(p, image)


def _crop(p: Preprocess, image: np.ndarray, rng: np.random.Generator) -> Pixels:
  size = p.image_size
  box = crops.random_box(*image.shape[:2], rng, scale=p.scale, ratio=p.ratio)
  image = crops.resize(
    crops.crop(image, box), size, size, interpolation=p.interpolation
  )
  image = crops.random_flip(image, rng, p.hflip)
  if any(p.color_jitter):
    image = crops.random_jitter(image, rng, p.color_jitter)
  return crops.random_lighting(image, rng, p.lighting) if p.lighting else image


def _shift(
  p: Preprocess, image: np.ndarray, rng: np.random.Generator
) -> Pixels:
  return crops.random_shift(_center(p, image), rng, p.shift)


AUGMENTS: dict[
  str, Callable[[Preprocess, np.ndarray, np.random.Generator], Pixels]
] = {"none": _none, "crop": _crop, "shift": _shift}


def _check(p: Preprocess) -> None:
  choices = {"augment": AUGMENTS, "interpolation": crops.FILTERS}
  for name, allowed in choices.items():
    value = getattr(p, name)
    if value not in allowed:
      raise ValueError(
        f"preprocess.{name}={value!r}; it must be one of {sorted(allowed)}"
      )
  rules = {
    "image_size": (p.image_size >= 1, "at least 1"),
    "crop_pct": (0 < p.crop_pct <= 1, "in (0, 1]"),
    "scale": (_is_range(p.scale) and p.scale[1] <= 1, "0 < low <= high <= 1"),
    "ratio": (_is_range(p.ratio), "0 < low <= high"),
    "hflip": (0 <= p.hflip <= 1, "in [0, 1]"),
    "color_jitter": (
      len(p.color_jitter) == 3 and min(p.color_jitter) >= 0,
      "3 numbers >= 0: brightness, contrast, saturation",
    ),
    "lighting": (p.lighting >= 0, "at least 0"),
    "shift": (0 <= p.shift < p.image_size, "in [0, image_size)"),
  }
  for name, (holds, allowed) in rules.items():
    if not holds:
      raise ValueError(
        f"preprocess.{name}={getattr(p, name)}; it must be {allowed}"
      )
  if p.shift and p.augment != "shift":
    raise ValueError(
      f"preprocess.shift={p.shift} has no effect with augment={p.augment!r}; "
      "set augment='shift' or shift=0"
    )


def _is_range(bounds: tuple[float, ...]) -> bool:
  return len(bounds) == 2 and 0 < bounds[0] <= bounds[1]
