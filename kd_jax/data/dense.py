"""From a record with a mask to the image and label map that a network sees.

The training view is that of the KDEP authors' semseg fork (arXiv:2203.05180,
src/semseg): scale, rotate, blur, distort colours, mirror and crop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Float64, UInt8

from kd_jax.data.augment import joint, photometric
from kd_jax.data.augment.crops import MEAN_COLOUR
from kd_jax.data.preprocess import pixels
from kd_jax.data.views import Draw, Views
from kd_jax.types import Record


@dataclasses.dataclass(frozen=True)
class Dense(Views):
  """What happens to an image and its mask, which stay one on the other.

  A training view draws the same `Draws`, however many of them it uses.
  Everything below `fill` is about evaluation, see `windows.window_batches`.

  Attributes:
    image_size: side of the square result, and of the windows in evaluation.
    augment: training view; 'full' is all of the fields below it, but for
      `shift`, and a random crop. 'none', for small images of one size, is the
      middle of the image, mirrored and moved as `hflip` and `shift` say.
    scale: 'full': range of the factor, uniform.
    ratio: 'full': range of width / height of the factors, uniform.
    rotate: 'full': largest angle to either side, degrees.
    rotate_prob: 'full': probability of rotating.
    blur_prob: 'full': probability of a Gaussian blur.
    blur_size: 'full': side of its kernel, odd, pixels.
    photometric: 'full': strength of `photometric.distort`; 0 is none, 1 the
      authors'.
    hflip: probability of mirroring.
    shift: 'none': largest move, pixels of the result.
    fill: colour where there is no image, ImageNet's mean; masks have -1 there.
    long_side: to which images are resized; 0 keeps their size.
    scales: at which evaluation looks at an image, factors of `long_side`.
    eval_size: height and width of the largest resized image at scale 1, which
      all take the space of; () is `long_side` twice, or without it
      `image_size`.
    label_size: height and width of the largest mask; () is `eval_size`.

  Raises:
    ValueError: a value is outside what is allowed.
  """

  image_size: int = 512
  augment: str = "full"
  scale: tuple[float, float] = (0.5, 2.0)
  ratio: tuple[float, float] = (1.0, 1.0)
  rotate: float = 10.0
  rotate_prob: float = 0.5
  blur_prob: float = 0.5
  blur_size: int = 5
  photometric: float = 1.0
  hflip: float = 0.5
  shift: int = 0
  fill: tuple[int, int, int] = MEAN_COLOUR
  long_side: int = 0
  scales: tuple[float, ...] = (1.0,)
  eval_size: tuple[int, ...] = ()
  label_size: tuple[int, ...] = ()

  # What `Views` has beside; a network that was trained so expects no margin.
  interpolation = "bilinear"
  crop_pct = 1.0
  crop_mode = "center"
  train_interpolation = "bilinear"
  num_crops = 1
  canvas = 0

  def __post_init__(self) -> None:
    tuples = ("scale", "ratio", "fill", "scales", "eval_size", "label_size")
    for name in tuples:
      # Configs hold lists; the dataclass must stay hashable.
      object.__setattr__(self, name, tuple(getattr(self, name)))
    _check(self)

  def label_specs(self, rows: int) -> jax.ShapeDtypeStruct:
    """See `Views`: the class of every pixel."""
    return jax.ShapeDtypeStruct((rows, *self.canvas_size), np.int16)

  def train(self, record: Record, rng: Draw) -> Mapping[str, np.ndarray]:
    """The augmented image and mask of a record.

    Args:
      record: with pixels or encoded bytes, and a mask.
      rng: crop number -> its source of randomness; only that of 0 is used.

    Returns:
      {'image': (1, s, s, 3) uint8, 'label': (1, s, s) int16, -1 where it is
      ignored}.

    Raises:
      ValueError: the record has no mask, or its image cannot be decoded.
    """
    both, draws = pair(record), draw(rng(0))
    image, label = AUGMENTS[self.augment](self, both, draws)
    return {"image": image[None], "label": label[None]}

  def eval(self, record: Record) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of the image, in its own size, as (s, s, 3) uint8."""
    image = pixels(record)
    nothing = np.empty(image.shape[:2], np.int16)
    return _middle(self, (image, nothing))[0]


class Draws(NamedTuple):
  """Numbers in [0, 1) of a training view, in the order in which they are drawn.

  Attributes:
    scale: where in the range of the factor.
    ratio: where in the range of the factors' ratio.
    rotate: the image is rotated if this is below the probability.
    angle: where in the range of angles.
    blur: as `rotate`.
    colours: see `photometric.draw`.
    flip: as `rotate`.
    down: where the crop lies, or how far the image is moved.
    right: the same from left to right.
  """

  scale: float
  ratio: float
  rotate: float
  angle: float
  blur: float
  colours: Float64[np.ndarray, " 9"]
  flip: float
  down: float
  right: float


def draw(rng: np.random.Generator) -> Draws:
  """All numbers of a view, whether it uses them or not."""
  scale, ratio, rotate, angle, blur = rng.random(5).tolist()
  colours = rng.random(photometric.NUMBERS)
  flip, down, right = rng.random(3).tolist()
  return Draws(scale, ratio, rotate, angle, blur, colours, flip, down, right)


def pair(record: Record) -> joint.Pair:
  """The record's image, decoded where it is still encoded, and its mask.

  Raises:
    ValueError: it has no mask, or the image cannot be decoded.
  """
  mask = mask_of(record)
  return pixels(record), mask


def mask_of(record: Record) -> joint.Mask:
  """The record's mask.

  Raises:
    ValueError: it has none.
  """
  if "mask" not in record:
    raise ValueError(
      f"record {record['id']} has no mask; segmentation needs a source with "
      "masks, such as --config.data.name=pairs"
    )
  return record["mask"]


def _between(bounds: tuple[float, float], share: float) -> float:
  return bounds[0] + (bounds[1] - bounds[0]) * share


def _full(d: Dense, both: joint.Pair, draws: Draws) -> joint.Pair:
  factor = _between(d.scale, draws.scale)
  ratio = math.sqrt(_between(d.ratio, draws.ratio))
  both = joint.scaled(both, factor * ratio, factor / ratio)
  if draws.rotate < d.rotate_prob and d.rotate:
    angle = _between((-d.rotate, d.rotate), draws.angle)
    both = joint.rotated(both, angle, d.fill)
  if draws.blur < d.blur_prob:
    size = (d.blur_size, d.blur_size)
    both = cv2.GaussianBlur(both[0], size, 0), both[1]
  if draws.flip < d.hflip:
    both = joint.mirrored(both)
  image, mask = joint.cut(both, d.image_size, draws.down, draws.right)
  # The authors do it before they mirror and crop. Pixels do not meet in it, so
  # that the result is the same with fewer of them, but for a level of 255 where
  # OpenCV comes back from HSV.
  colours = photometric.draw(draws.colours, d.photometric)
  image = photometric.distort(image, colours)
  return joint.padded((image, mask), d.image_size, d.fill)


def _none(d: Dense, both: joint.Pair, draws: Draws) -> joint.Pair:
  both = _middle(d, both)
  if draws.flip < d.hflip:
    both = joint.mirrored(both)
  if not d.shift:
    return both
  places = 2 * d.shift + 1
  down, right = (
    math.floor(share * places) - d.shift for share in (draws.down, draws.right)
  )
  return joint.moved(both, down, right, d.fill)


def _middle(d: Dense, both: joint.Pair) -> joint.Pair:
  """The middle (s, s) pixels of both, padded where they are smaller."""
  starts = [max(length - d.image_size, 0) // 2 for length in both[1].shape]
  rows, columns = (slice(start, start + d.image_size) for start in starts)
  image, mask = (array[rows, columns] for array in both)
  return joint.padded((image, mask), d.image_size, d.fill)


AUGMENTS: dict[str, Callable[[Dense, joint.Pair, Draws], joint.Pair]] = {
  "full": _full,
  "none": _none,
}


def _check(d: Dense) -> None:
  if d.augment not in AUGMENTS:
    raise ValueError(
      f"preprocess.augment={d.augment!r}; for segmentation it must be one of "
      f"{sorted(AUGMENTS)}"
    )
  for name, (holds, allowed) in _ranges(d).items():
    if not holds:
      raise ValueError(
        f"preprocess.{name}={getattr(d, name)}; it must be {allowed}"
      )
  if d.shift and d.augment != "none":
    raise ValueError(
      f"preprocess.shift={d.shift} has no effect with augment={d.augment!r}, "
      "which crops at random; set augment='none' or shift=0"
    )


def _ranges(d: Dense) -> dict[str, tuple[bool, str]]:
  share, size = "in [0, 1]", "(), or height and width of at least 1"
  return {
    "image_size": (d.image_size >= 1, "at least 1"),
    "scale": (_is_range(d.scale), "0 < low <= high"),
    "ratio": (_is_range(d.ratio), "0 < low <= high"),
    "rotate": (0 <= d.rotate <= 180, "in [0, 180]"),
    "rotate_prob": (0 <= d.rotate_prob <= 1, share),
    "blur_prob": (0 <= d.blur_prob <= 1, share),
    "blur_size": (d.blur_size >= 1 and d.blur_size % 2 == 1, "odd"),
    "photometric": (0 <= d.photometric <= 2, "in [0, 2]"),
    "hflip": (0 <= d.hflip <= 1, share),
    "shift": (0 <= d.shift < d.image_size, "in [0, image_size)"),
    "fill": (
      len(d.fill) == 3 and all(0 <= value <= 255 for value in d.fill),
      "3 values in [0, 255]: red, green, blue",
    ),
    "long_side": (d.long_side >= 0, "at least 0"),
    "scales": (
      len(d.scales) > 0 and min(d.scales, default=0) > 0,
      "one or more factors above 0",
    ),
    "eval_size": (_is_size(d.eval_size), size),
    "label_size": (_is_size(d.label_size), size),
  }


def _is_range(bounds: tuple[float, ...]) -> bool:
  return len(bounds) == 2 and 0 < bounds[0] <= bounds[1]


def _is_size(size: tuple[int, ...]) -> bool:
  return size == () or (len(size) == 2 and min(size) >= 1)
