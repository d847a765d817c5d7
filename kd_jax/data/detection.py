"""From a record with objects to the canvas that a detector sees.

Images keep their shape, are scaled by their shorter side and lie in the upper
left corner of a canvas. There are few canvases, since every size is compiled:
the images of a batch share one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64, UInt8

from kd_jax.data.augment import crops
from kd_jax.data.augment.crops import MEAN_COLOUR
from kd_jax.data.augment.objects import Placed, labels, things
from kd_jax.data.preprocess import pixels
from kd_jax.data.views import Draw, Views
from kd_jax.interfaces import computed
from kd_jax.types import Objects, Record

Size = tuple[int, int]
"""Height and width, pixels."""


@dataclasses.dataclass(frozen=True)
class Detection(Views):
  """What happens to an image and the boxes and masks on it.

  Attributes:
    short: shorter sides of training images, drawn alike.
    long: longest side of an image whose shorter side is the largest of `short`;
      with a smaller one proportionally less. Longer images are scaled down.
    test_short: shorter side in evaluation.
    test_long: longest side in evaluation.
    buckets: groups of neighbours that `short` is divided into. A batch is of
      one group, which is drawn with its share of `short`, and of landscape or
      portrait images.
    jitter: (least, most) scale of large-scale jitter (arXiv:2012.07177): the
      image, fitted into a square of `short` and scaled, is cropped or padded to
      that square. () has none.
    hflip: probability of mirroring in training.
    max_objects: room for the objects of an image.
    too_many: what happens to images with more: 'error', or 'drop': the largest
      objects are kept.
    masks: whether masks are learnt.
    mask_size: side of the grid that a mask travels on, stretched over its box.
    min_side: objects with a visible side of less are not learnt, pixels.
    divisor: of the sides of canvases.
    fill: colour beside the image, ImageNet's mean.

  Raises:
    ValueError: a value is outside what is allowed.
  """

  short: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
  long: int = 1333
  test_short: int = 800
  test_long: int = 1333
  buckets: int = 2
  jitter: tuple[float, ...] = ()
  hflip: float = 0.5
  max_objects: int = 100
  too_many: str = "error"
  masks: bool = False
  mask_size: int = 112
  min_side: float = 0.0
  divisor: int = 32
  fill: tuple[int, int, int] = MEAN_COLOUR

  # What `Views` has beside; a network that was trained so expects no margin.
  interpolation = "bilinear"
  crop_pct = 1.0
  crop_mode = "center"
  train_interpolation = "bilinear"
  augment = "objects"
  num_crops = 1
  canvas = 0

  def __post_init__(self) -> None:
    for name in ("short", "jitter", "fill"):
      # Configs hold lists; the dataclass must stay hashable.
      object.__setattr__(self, name, tuple(getattr(self, name)))
    _check(self)

  @computed
  def image_size(self) -> int:
    """The shorter side in evaluation."""
    return self.test_short

  @property
  def canvas_size(self) -> Size:
    """See `Views`: the canvas of the largest landscape images."""
    return self.canvases()[-1]

  def canvases(self) -> list[Size]:
    """All sizes of training batches of landscape images, smallest first.

    Those of portrait images are the same, turned.
    """
    return [self._canvas(max(group)) for group in self._groups()]

  def described(self) -> dict[str, Any]:
    """See `Views`."""
    sizes = {s for c in self.canvases() for s in (c, c[::-1])}
    test = self.eval_canvas()
    return {
      "short_sides": ", ".join(map(str, self.short)),
      "training_canvases": ", ".join(f"{h}x{w}" for h, w in sorted(sizes)),
      "evaluation_canvas": f"{test[0]}x{test[1]}, or turned",
    }

  def label_specs(self, rows: int) -> Objects:
    """See `Views`."""
    g, m = self.max_objects, self.mask_size if self.masks else 0

    def spec(dtype: type, *shape: int) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((rows, *shape), dtype)

    return Objects(
      boxes=spec(np.float32, g, 4),
      classes=spec(np.int32, g),
      masks=spec(np.uint8, g, m, m),
      frames=spec(np.float32, g, 4),
      size=spec(np.int32, 2),
    )

  @property
  def oriented(self) -> bool:
    """See `Views`."""
    return not self.jitter

  def of_batch(self, rng: Callable[[], np.random.Generator]) -> Detection:
    """See `Views`: one group of shorter sides."""
    groups = self._groups()
    place = int(len(self.short) * rng().random())
    ends = np.cumsum([len(group) for group in groups])
    group = groups[int(np.searchsorted(ends, place, side="right"))]
    # Its longest side follows from the largest of all groups.
    longest = round(self.long * max(group) / max(self.short))
    return dataclasses.replace(self, short=group, long=longest, buckets=1)

  def train(self, record: Record, rng: Draw) -> Mapping[str, Any]:
    """The scaled and mirrored image on its canvas, and its objects.

    Args:
      record: with pixels or encoded bytes, and objects.
      rng: crop number -> its source of randomness; only that of 0 is used.

    Returns:
      {'image': (1, H, W, 3) uint8, 'label': `Objects` of one image}.

    Raises:
      ValueError: the record has no objects or too many, or its image cannot be
        decoded.
    """
    image, draws = pixels(record), rng(0).random(5)
    placed = self._placed(image.shape[:2], draws)
    size = placed.canvas
    canvas = put(image, placed, size, self.fill)
    found = labels(
      things(record),
      placed,
      count=self.max_objects,
      too_many=self.too_many,
      grid=self.mask_size if self.masks else 0,
      least=self.min_side,
      name=str(record["id"]),
    )
    label = Objects(**{name: value[None] for name, value in found.items()})
    return {"image": canvas[None], "label": label}

  def eval(self, record: Record) -> UInt8[np.ndarray, "h w 3"]:
    """The image on the canvas of evaluation, as (H, W, 3) uint8."""
    image = pixels(record)
    placed = self.eval_placed(image.shape[:2])
    return put(image, placed, placed.canvas, self.fill)

  def eval_placed(self, size: Size) -> Placed:
    """Where an image of `size` (height, width) lies in evaluation."""
    new = scaled(size, self.test_short, self.test_long)
    canvas = self.eval_canvas(portrait=size[0] > size[1])
    return Placed.whole(size, new, canvas)

  def eval_canvas(self, *, portrait: bool = False) -> Size:
    """Height and width of the canvas of evaluation."""
    found = self._up(self.test_short), self._up(self.test_long)
    return (found[1], found[0]) if portrait else found

  def _placed(self, size: Size, draws: Float64[np.ndarray, " 5"]) -> Placed:
    """Where an image lies in training; `draws` has all that is random."""
    flip = bool(draws[0] < self.hflip)
    side = self.short[int(len(self.short) * draws[1])]
    if not self.jitter:
      longest = round(self.long * side / max(self.short))
      canvas = self._canvas(max(self.short))
      if size[0] > size[1]:
        canvas = canvas[1], canvas[0]
      return Placed.whole(size, scaled(size, side, longest), canvas, flip)
    least, most = self.jitter
    factor = side * (least + (most - least) * draws[2]) / max(size)
    new = [max(round(length * factor), 1) for length in size]
    spare = [max(length - side, 0) for length in new]
    # Crops are drawn alike over all places.
    corner = [int((s + 1) * d) for s, d in zip(spare, draws[3:], strict=True)]
    canvas = (self._up(side), self._up(side))
    return Placed(size, (new[0], new[1]), (corner[0], corner[1]), canvas, flip)

  def _groups(self) -> list[tuple[int, ...]]:
    parts = np.array_split(sorted(self.short), self.buckets)
    return [tuple(part.tolist()) for part in parts]

  def _canvas(self, short: int) -> Size:
    """Of landscape images with a shorter side of at most `short`."""
    if self.jitter:
      return self._up(short), self._up(short)
    long = max(round(self.long * short / max(self.short)), short)
    return self._up(short), self._up(long)

  def _up(self, side: int) -> int:
    return math.ceil(side / self.divisor) * self.divisor


def scaled(size: Size, short: int, long: int) -> Size:
  """Height and width of an image whose shorter side becomes `short`.

  Args:
    size: height and width of the image.
    short: its shorter side afterwards, unless the other one would exceed
    long: the longest side.
  """
  factor = short / min(size)
  if max(size) * factor > long:
    factor = long / max(size)
  height, width = (max(int(side * factor + 0.5), 1) for side in size)
  return height, width


def put(
  image: UInt8[np.ndarray, "h w 3"],
  placed: Placed,
  canvas: Size,
  fill: tuple[int, int, int],
) -> UInt8[np.ndarray, "H W 3"]:
  """An image, resized, cropped and mirrored, in the corner of a canvas."""
  image = crops.resize(image, *placed.resized, interpolation="bilinear")
  (top, left), (height, width) = placed.corner, placed.shown
  image = image[top : top + height, left : left + width]
  found = np.empty((*canvas, 3), np.uint8)
  found[:] = fill
  found[:height, :width] = image[:, ::-1] if placed.flip else image
  return found


def _check(d: Detection) -> None:
  for name, (holds, allowed) in _ranges(d).items():
    if not holds:
      raise ValueError(
        f"preprocess.{name}={getattr(d, name)!r}; it must be {allowed}"
      )


def _ranges(d: Detection) -> dict[str, tuple[bool, str]]:
  sides = all(isinstance(side, int) and side >= 1 for side in d.short)
  largest = max(d.short, default=0) if sides else 0
  low, high = d.jitter if len(d.jitter) == 2 else (0, 0)
  many = "from 1 to the number of preprocess.short"
  return {
    "short": (sides and largest > 0, "one whole number or more, from 1 on"),
    "long": (d.long >= largest, f"at least the largest of short, {largest}"),
    "test_short": (d.test_short >= 1, "at least 1"),
    "test_long": (d.test_long >= d.test_short, "at least test_short"),
    "buckets": (1 <= d.buckets <= max(len(d.short), 1), many),
    "jitter": (
      d.jitter == () or (0 < low <= high and len(d.short) == 1),
      "(), or 0 < least <= most with a single side in preprocess.short",
    ),
    "hflip": (0 <= d.hflip <= 1, "in [0, 1]"),
    "max_objects": (d.max_objects >= 1, "at least 1"),
    "too_many": (d.too_many in ("error", "drop"), "'error' or 'drop'"),
    "mask_size": (d.mask_size >= 1, "at least 1"),
    "min_side": (d.min_side >= 0, "at least 0"),
    "divisor": (d.divisor >= 1, "at least 1"),
    "fill": (
      len(d.fill) == 3 and all(0 <= value <= 255 for value in d.fill),
      "3 values in [0, 255]: red, green, blue",
    ),
  }
