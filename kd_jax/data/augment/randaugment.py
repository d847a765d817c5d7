r"""RandAugment (arXiv:1909.13719) as timm runs `rand-m9-mstd0.5-inc1`.

The operations are PIL's, with timm's 'increasing' arguments: every operation
gets stronger with the magnitude. What moves in from outside the image is
ImageNet's mean colour.

  from kd_jax.data.augment.randaugment import OPS; print(*OPS, sep="\n")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from kd_jax.data.augment.crops import FILTERS, MEAN_COLOUR, Pixels

Filter = Image.Resampling


class Op(NamedTuple):
  """One operation.

  Attributes:
    name: as in timm.
    argument: what the magnitude sets, and its values at magnitudes 0 and 10.
    signed: the level is negated in half of the cases.
    value: level in [0, 1], or [-1, 1] if signed, to the argument.
    apply: (image, argument, filter for what moves) -> image.
  """

  name: str
  argument: str
  signed: bool
  value: Callable[[float], float]
  apply: Callable[[Image.Image, float, Filter], Image.Image]

  def __str__(self) -> str:
    sign = "+-" if self.signed else ""
    return f"{self.name}: {sign}{self.argument}" if self.argument else self.name

  def __call__(
    self, image: Image.Image, level: float, resample: Filter
  ) -> Image.Image:
    """`image` changed to `level`, which is a tenth of a magnitude."""
    return self.apply(image, self.value(level), resample)


def random_augment(
  image: Pixels,
  rng: np.random.Generator,
  *,
  num_ops: int = 2,
  magnitude: float = 9.0,
  magnitude_std: float = 0.5,
  prob: float = 0.5,
) -> Pixels:
  """Applies operations from `OPS`, drawn with replacement, one by one.

  Args:
    image: what to change.
    rng: source of randomness.
    num_ops: number of draws.
    magnitude: mean strength, 0 to 10.
    magnitude_std: standard deviation of the strength of each operation, which
      is then clipped to [0, 10].
    prob: probability that a drawn operation is applied.

  Raises:
    ValueError: a setting is out of range.
  """
  _check(num_ops, magnitude, magnitude_std, prob)
  result = Image.fromarray(np.ascontiguousarray(image))
  for index in rng.integers(len(OPS), size=num_ops):
    if rng.random() >= prob:
      continue
    op = OPS[index]
    level = min(max(rng.normal(magnitude, magnitude_std), 0.0), 10.0) / 10
    if op.signed and rng.random() < 0.5:
      level = -level
    result = op(result, level, _FILTERS[rng.integers(len(_FILTERS))])
  return np.asarray(result)


def _check(num_ops: int, magnitude: float, std: float, prob: float) -> None:
  rules = (
    ("num_ops", num_ops, num_ops >= 0, "at least 0"),
    ("magnitude", magnitude, 0 <= magnitude <= 10, "in [0, 10]"),
    ("magnitude_std", std, std >= 0, "at least 0"),
    ("prob", prob, 0 <= prob <= 1, "in [0, 1]"),
  )
  for name, value, holds, allowed in rules:
    if not holds:
      raise ValueError(f"{name}={value}; it must be {allowed}")


def _move(image: Image.Image, matrix: tuple, resample: Filter) -> Image.Image:
  return image.transform(
    image.size,
    Image.Transform.AFFINE,
    matrix,
    resample=resample,
    fillcolor=MEAN_COLOUR,
  )


def _rotate(
  image: Image.Image, degrees: float, resample: Filter
) -> Image.Image:
  return image.rotate(degrees, resample=resample, fillcolor=MEAN_COLOUR)


def _posterize(image: Image.Image, bits: float, _: Filter) -> Image.Image:
  # Not ImageOps.posterize: since Pillow 13 that refuses 0 bits, which every
  # magnitude of 10 asks for. They make the image black.
  mask = 256 - 2 ** (8 - int(bits))
  return image.point([i & mask for i in range(256)] * 3)


def _add_below_128(image: Image.Image, add: float, _: Filter) -> Image.Image:
  table = [min(255, i + int(add)) if i < 128 else i for i in range(256)]
  return image.point(3 * table)


def _enhance(name: str, enhancer: type) -> Op:
  return Op(
    name,
    "0 to 0.9 about 1, but at least 0.1",
    True,
    lambda level: max(0.1, 1.0 + level * 0.9),
    lambda image, factor, _: enhancer(image).enhance(factor),
  )


_FILTERS = tuple(FILTERS.values())

OPS = (
  Op(
    "AutoContrast",
    "",
    False,
    float,
    lambda image, *_: ImageOps.autocontrast(image),
  ),
  Op("Equalize", "", False, float, lambda image, *_: ImageOps.equalize(image)),
  Op("Invert", "", False, float, lambda image, *_: ImageOps.invert(image)),
  Op("Rotate", "0 to 30 degrees", True, lambda level: level * 30.0, _rotate),
  Op(
    "PosterizeIncreasing",
    "4 to 0 bits kept",
    False,
    lambda level: 4 - int(level * 4),
    _posterize,
  ),
  Op(
    "SolarizeIncreasing",
    "inverted from 256 to 0",
    False,
    lambda level: 256 - min(256, int(level * 256)),
    lambda image, threshold, _: ImageOps.solarize(image, int(threshold)),
  ),
  Op(
    "SolarizeAdd",
    "0 to 110 added below 128",
    False,
    lambda level: min(128, int(level * 110)),
    _add_below_128,
  ),
  _enhance("ColorIncreasing", ImageEnhance.Color),
  _enhance("ContrastIncreasing", ImageEnhance.Contrast),
  _enhance("BrightnessIncreasing", ImageEnhance.Brightness),
  _enhance("SharpnessIncreasing", ImageEnhance.Sharpness),
  Op(
    "ShearX",
    "0 to 0.3",
    True,
    lambda level: level * 0.3,
    lambda image, x, resample: _move(image, (1, x, 0, 0, 1, 0), resample),
  ),
  Op(
    "ShearY",
    "0 to 0.3",
    True,
    lambda level: level * 0.3,
    lambda image, y, resample: _move(image, (1, 0, 0, y, 1, 0), resample),
  ),
  Op(
    "TranslateXRel",
    "0 to 0.45 of the width",
    True,
    lambda level: level * 0.45,
    lambda image, x, resample: _move(
      image, (1, 0, x * image.size[0], 0, 1, 0), resample
    ),
  ),
  Op(
    "TranslateYRel",
    "0 to 0.45 of the height",
    True,
    lambda level: level * 0.45,
    lambda image, y, resample: _move(
      image, (1, 0, 0, 0, 1, y * image.size[1]), resample
    ),
  ),
)
"""All operations, in timm's order; print one to see what it does."""
