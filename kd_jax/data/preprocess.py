"""From a record to the uint8 image that a model sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from kd_jax.data.augment import canvas, crops, randaugment
from kd_jax.data.formats.decode import REDUCTIONS, decode
from kd_jax.data.views import Draw, Views
from kd_jax.types import Record

Pixels = UInt8[np.ndarray, "s s 3"]

Geometry = tuple[int, int, int, int, int, int, int]
View = tuple[Pixels, Geometry]
Size = tuple[int, int]
"""Height and width, pixels."""

_SPARE = 2  # pixels of a reduced view per pixel of the result

EXACT = ("bilinear", "bicubic")
"""Interpolations that are PIL's own, as checkpoints name them."""


@dataclasses.dataclass(frozen=True)
class Preprocess(Views):
  """What happens to an image; one size for training and evaluation.

  Attributes:
    image_size: side of the square result, pixels.
    interpolation: of the evaluation view: 'bilinear' or 'bicubic', PIL's.
    crop_pct: evaluation resizes the short side to image_size / crop_pct.
    crop_mode: of the evaluation view, as timm calls it: 'center' keeps the
      proportions of the image, 'squash' resizes both sides alike.
    train_interpolation: of random crops: 'area' (fast, see `crops.resize`),
      'bilinear' or 'bicubic' (PIL's).
    dct_scaling: 'crop': JPEGs whose views are at least 4 times `image_size`
      are decoded at a half, a quarter or an eighth of their size, at least
      twice that of the views. For photos of cameras, where decoding is most of
      the work: libjpeg leaves out the frequencies that resizing would remove.
    augment: training view; 'none' is the evaluation view, 'crop' is a random
      resized crop and what the fields below it say, 'shift' moves the
      evaluation view (for digits, which must not be flipped), 'squash' is
      the whole image, whatever its shape (for label maps).
    num_crops: training views of every decoded image.
    scale: 'crop': area range, as a share of the image.
    ratio: 'crop': range of width / height.
    hflip: 'crop': probability of mirroring.
    rand_ops: 'crop': operations of RandAugment per view; 0 is none.
    rand_magnitude: of RandAugment, 0 to 10.
    color_jitter: 'crop': brightness, contrast, saturation strengths.
    lighting: 'crop': standard deviation of the PCA noise; 0 is none.
    erase_prob: 'crop': probability of erasing a rectangle.
    erase_mode: 'const' (mean colour) or 'pixel' (noise).
    shift: 'shift': largest move, pixels of the result.
    canvas: 'crop': 0, or the side of the square on which images travel to
      the device, where the step crops and resizes them; larger images shrink
      to it first. Leaves the host with decoding only; for accelerators.

  Raises:
    ValueError: a value is outside what is allowed.
  """

  image_size: int = 224
  interpolation: str = "bicubic"
  crop_pct: float = 0.875
  crop_mode: str = "center"
  train_interpolation: str = "area"
  dct_scaling: bool = False
  augment: str = "crop"
  num_crops: int = 1
  scale: tuple[float, float] = (0.08, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  hflip: float = 0.5
  rand_ops: int = 0
  rand_magnitude: float = 9.0
  color_jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)
  lighting: float = 0.0
  erase_prob: float = 0.0
  erase_mode: str = "pixel"
  shift: int = 0
  canvas: int = 0

  def __post_init__(self):
    for name in ("scale", "ratio", "color_jitter"):
      # Configs hold lists; the dataclass must stay hashable.
      object.__setattr__(self, name, tuple(getattr(self, name)))
    _check(self)

  def stated(self) -> dict[str, Any]:
    """{field: value}, as fingerprints and banks tell views apart.

    `crop_mode` is left out where it is 'center', and `dct_scaling` where it is
    off, so that what was written before there was a choice still belongs to
    the same views.
    """
    fields = super().stated()
    if self.crop_mode == "center":
      del fields["crop_mode"]
    if not self.dct_scaling:
      del fields["dct_scaling"]
    return fields

  @property
  def reduces(self) -> bool:
    """See `Views`."""
    return self.dct_scaling

  def reduction(self, size: tuple[int, int], rng: Draw) -> int:
    """See `Views`: as far as the smallest view allows."""
    boxes = [_draw(self, size, rng(k)) for k in range(self.num_crops)]
    side = min(min(height, width) for _, _, height, width, *_ in boxes)
    spare = side / (_SPARE * self.image_size)
    return max(d for d in REDUCTIONS if d <= max(spare, 1))

  def train(self, record: Record, rng: Draw) -> Mapping[str, np.ndarray]:
    """The `num_crops` augmented views of one record.

    Args:
      record: with pixels or encoded bytes.
      rng: crop number -> its source of randomness.

    Returns:
      {'image': (m, s, s, 3) uint8, 'geometry': (m, 7) int32}: where each view
      comes from: top, left, height, width of the box, 1 if it is mirrored,
      height and width of the image.
      With a canvas, 'image' is the whole of it, (side, side, 3), and the
      geometry is still to be applied.

    Raises:
      ValueError: the record's image cannot be decoded.
    """
    image = pixels(record)
    # Where nothing is drawn, a generator would take most of the time.
    draw = _undrawn if self.augment == "none" else rng
    generators = [draw(k) for k in range(self.num_crops)]
    if self.canvas:
      return _on_canvas(self, image, generators)
    height, width = image.shape[:2]
    size = record.get("whole", (height, width))
    view = AUGMENTS[self.augment]
    views = [view(self, image, size, r) for r in generators]
    images, geometry = zip(*views, strict=True)
    return {
      # For one view, without the copy that a stack makes.
      "image": np.stack(images) if self.num_crops > 1 else images[0][None],
      "geometry": np.array(geometry, np.int32),
    }

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
    image,
    p.image_size,
    crop_pct=p.crop_pct,
    interpolation=p.interpolation,
    mode=p.crop_mode,
  )


_NOTHING = np.random.Generator(np.random.Philox(0))


def _undrawn(_: int) -> np.random.Generator:
  """One that nobody reads."""
  return _NOTHING


def _none(
  p: Preprocess, image: np.ndarray, size: Size, _: np.random.Generator
) -> View:
  height, width = size
  return _center(p, image), (0, 0, height, width, 0, height, width)


def _crop(
  p: Preprocess, image: np.ndarray, size: Size, rng: np.random.Generator
) -> View:
  side = p.image_size
  geometry = _draw(p, size, rng)
  box = crops.Box(*geometry[:4])
  height, width = image.shape[:2]
  if (height, width) != size:
    box = _reduced(box, size, (height, width))
  image = crops.resize(
    crops.crop(image, box),
    side,
    side,
    interpolation=p.train_interpolation,
  )
  image = crops.mirror(image) if geometry[4] else image
  if p.rand_ops:
    image = randaugment.random_augment(
      image, rng, num_ops=p.rand_ops, magnitude=p.rand_magnitude
    )
  if any(p.color_jitter):
    image = crops.random_jitter(image, rng, p.color_jitter)
  if p.lighting:
    image = crops.random_lighting(image, rng, p.lighting)
  if p.erase_prob:
    image = crops.random_erase(image, rng, prob=p.erase_prob, mode=p.erase_mode)
  return image, geometry


def _reduced(box: crops.Box, whole: Size, size: Size) -> crops.Box:
  """The box in an image that was decoded smaller, to the nearest pixels."""
  rows, columns = size[0] / whole[0], size[1] / whole[1]
  top, left = round(box.top * rows), round(box.left * columns)
  bottom = round((box.top + box.height) * rows)
  right = round((box.left + box.width) * columns)
  return crops.Box(top, left, bottom - top, right - left)


def _squash(
  p: Preprocess, image: np.ndarray, size: Size, _: np.random.Generator
) -> View:
  height, width = size
  whole = crops.resize(
    image, p.image_size, p.image_size, interpolation=p.train_interpolation
  )
  return whole, (0, 0, height, width, 0, height, width)


def _shift(
  p: Preprocess, image: np.ndarray, size: Size, rng: np.random.Generator
) -> View:
  moved, (down, right) = crops.random_shift(_center(p, image), rng, p.shift)
  height, width = size
  return moved, (down, right, height, width, 0, height, width)


def _on_canvas(
  p: Preprocess, image: np.ndarray, rngs: list[np.random.Generator]
) -> Mapping[str, np.ndarray]:
  """The image on its canvas, and what the device shall cut out of it."""
  drawn, size = canvas.to_canvas(image, p.canvas)
  geometry = [_draw(p, size, rng) for rng in rngs]
  return {"image": drawn, "geometry": np.array(geometry, np.int32)}


def _draw(
  p: Preprocess, size: tuple[int, int], rng: np.random.Generator
) -> Geometry:
  """Box and flip of a random resized crop."""
  box = crops.random_box(*size, rng, scale=p.scale, ratio=p.ratio)
  flip = int(rng.random() < p.hflip)
  return (box.top, box.left, box.height, box.width, flip, *size)


AUGMENTS: dict[
  str, Callable[[Preprocess, np.ndarray, Size, np.random.Generator], View]
] = {"none": _none, "crop": _crop, "shift": _shift, "squash": _squash}

# What changes pixels on the host, which a canvas leaves to the device.
_ON_HOST = ("rand_ops", "color_jitter", "lighting", "erase_prob")
_CROP_ONLY = ("canvas", "rand_ops", "erase_prob", "dct_scaling")


def _check(p: Preprocess) -> None:
  choices = {
    "augment": AUGMENTS,
    "interpolation": EXACT,
    "crop_mode": crops.MODES,
    "train_interpolation": ("area", *EXACT),
    "erase_mode": ("const", "pixel"),
  }
  for name, allowed in choices.items():
    value = getattr(p, name)
    if value not in allowed:
      raise ValueError(
        f"preprocess.{name}={value!r}; it must be one of {sorted(allowed)}"
      )
  for name, (holds, allowed) in _ranges(p).items():
    if not holds:
      raise ValueError(
        f"preprocess.{name}={getattr(p, name)}; it must be {allowed}"
      )
  if p.shift and p.augment != "shift":
    raise ValueError(
      f"preprocess.shift={p.shift} has no effect with augment={p.augment!r}; "
      "set augment='shift' or shift=0"
    )
  _check_use(p)


def _ranges(p: Preprocess) -> dict[str, tuple[bool, str]]:
  return {
    "image_size": (p.image_size >= 1, "at least 1"),
    "crop_pct": (0 < p.crop_pct <= 1, "in (0, 1]"),
    "num_crops": (p.num_crops >= 1, "at least 1"),
    "scale": (_is_range(p.scale) and p.scale[1] <= 1, "0 < low <= high <= 1"),
    "ratio": (_is_range(p.ratio), "0 < low <= high"),
    "hflip": (0 <= p.hflip <= 1, "in [0, 1]"),
    "rand_ops": (p.rand_ops >= 0, "at least 0"),
    "rand_magnitude": (0 <= p.rand_magnitude <= 10, "in [0, 10]"),
    "color_jitter": (
      len(p.color_jitter) == 3 and min(p.color_jitter) >= 0,
      "3 numbers >= 0: brightness, contrast, saturation",
    ),
    "lighting": (p.lighting >= 0, "at least 0"),
    "erase_prob": (0 <= p.erase_prob <= 1, "in [0, 1]"),
    "shift": (0 <= p.shift < p.image_size, "in [0, image_size)"),
    "canvas": (
      p.canvas == 0 or p.canvas >= p.image_size,
      f"0 (crop on the host), or at least image_size={p.image_size}",
    ),
  }


def _check_use(p: Preprocess) -> None:
  """Whether no setting is without effect."""
  for name in _CROP_ONLY:
    if getattr(p, name) and p.augment != "crop":
      raise ValueError(
        f"preprocess.{name}={getattr(p, name)} has no effect with "
        f"augment={p.augment!r}; set augment='crop' or {name}=0"
      )
  used = [name for name in _ON_HOST if np.any(getattr(p, name))]
  if p.canvas and used:
    raise ValueError(
      f"preprocess.canvas={p.canvas} crops on the device, where {used} are "
      "not done; switch them off, or set canvas=0"
    )
  if p.dct_scaling and p.canvas:
    raise ValueError(
      f"preprocess.canvas={p.canvas} crops on the device, after decoding, so "
      "dct_scaling=True cannot know how much of an image is needed; set one of "
      "them only"
    )
  if p.canvas and p.train_interpolation == "area":
    raise ValueError(
      f"preprocess.canvas={p.canvas} crops on the device, which knows "
      f"train_interpolation={list(EXACT)}, not 'area'"
    )


def _is_range(bounds: tuple[float, ...]) -> bool:
  return len(bounds) == 2 and 0 < bounds[0] <= bounds[1]
