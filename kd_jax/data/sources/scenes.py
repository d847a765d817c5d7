"""Scenes: real handwritten digits pasted on real photographs, no download.

Digits are scikit-learn's (`data/sources/digits.py`), photographs its two sample
images. A scene is a part of a photograph with digits of random colours, sizes,
angles and places on it; class, box and mask of each are known. The splits share
neither digits nor photographs (`data/sources/scene_parts.py`). Scene i follows
from the fields and i alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from kd_jax import interfaces
from kd_jax.data.augment import paste
from kd_jax.data.sources import scene_parts, splits
from kd_jax.types import MarkedRecord, Marks, Record, is_marked

_SMALLEST = 8  # pixels of a digit's side, as many as the originals have
_PLACES = 20  # tries to find room for a digit
_HIDDEN = 0.25  # most that later digits cover of an earlier one
_KEPT = 2**25  # bytes of pixels: so many scenes are made only once
_SOURCES = 16  # of which they are kept for later runs of the same process


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Digits on photographs, as (size, size, 3) uint8 RGB.

  Records hold, beside image, label and id, unless labels are hidden:
  'mask', (size, size) int16, 0 for the background and 1 + class where a digit
  covers at least half of the pixel; and of the k digits, the later on top:
  'classes', (k,) int32; 'masks', (k, size, size) bool, the visible part; and
  'boxes', (k, 4) float32, (x0, y0, x1, y1) in pixels around that part.

  Attributes:
    split: 'train', 'validation' or 'test', or a part of one: 'train[:500]'.
    size: side of the images, pixels.
    length: number of scenes of every split.
    classes: these digits only, numbered from 0 in this order; () is all ten.
    digits: of every scene, or (least, most). With one, scene i has the class
      i modulo the number of classes, so that prefixes are balanced. With
      several, scenes have no label; a digit that finds no room is left out.
    seed: of the scenes.
    labels: False hides the labels (-1), masks and all else about the digits.
    per_class: keep only the first so many scenes of every class of the split;
      0 keeps all. Another seed gives others.
    min_size: least side of a digit, as a share of the image's.
    max_size: largest side; the ink takes some three quarters of it.
    rotation: largest turn either way, degrees.
    noise: standard deviation of the noise on every pixel, levels of 255.

  Raises:
    ValueError: a value is out of range, an unknown or empty split, or more
      scenes per class than the split has.
  """

  split: str = "train"
  size: int = 32
  length: int = 10_000
  classes: tuple[int, ...] = ()
  digits: int | tuple[int, int] = 1
  seed: int = 0
  labels: bool = True
  per_class: int = 0
  min_size: float = 0.45
  max_size: float = 0.8
  rotation: float = 15.0
  noise: float = 6.0

  def __post_init__(self) -> None:
    object.__setattr__(self, "classes", tuple(self.classes))
    if isinstance(self.digits, list):  # as configs may hold them
      object.__setattr__(self, "digits", tuple(self.digits))
    _check(self)
    _ = self._rows

  @functools.cached_property
  def _rows(self) -> range:
    """Places of the scenes in their split."""
    sizes = dict.fromkeys(scene_parts.PARTS, self.length)
    _, start, stop = splits.parse(self.split, sizes)
    kept = self.per_class * len(self._names)
    if kept > stop - start:
      raise ValueError(
        f"scenes.per_class={self.per_class} of {len(self._names)} classes is "
        f"more than the {stop - start} scenes of split={self.split!r}; lower "
        "it or raise scenes.length"
      )
    return range(start, start + kept if kept else stop)

  @property
  def _bounds(self) -> tuple[int, int]:
    """Least and most digits of a scene."""
    given = self.digits
    return (given, given) if isinstance(given, int) else given

  @property
  def _single(self) -> bool:
    return self._bounds == (1, 1)

  @property
  def _part(self) -> scene_parts.Part:
    return scene_parts.PARTS[self.split.partition("[")[0]]

  @property
  def _names(self) -> tuple[str, ...]:
    return tuple(map(str, self.classes or range(10)))

  @interfaces.computed
  def class_names(self) -> tuple[str, ...]:
    """The digits; () where scenes have no label."""
    return self._names if self.labels and self._single else ()

  @interfaces.computed
  def num_classes(self) -> int:
    """Number of digits to tell apart; 0 where scenes have no label."""
    return len(self.class_names)

  @interfaces.computed
  def mask_names(self) -> Sequence[str]:
    """'background' and the digits; () where labels are hidden."""
    return ("background", *self._names) if self.labels else ()

  @interfaces.computed
  def box_names(self) -> Sequence[str]:
    """The digits; () where labels are hidden."""
    return self._names if self.labels else ()

  def all_labels(self) -> list[int]:
    """See `DataSource`; no scene is made for it."""
    if not self.class_names:
      return [-1] * len(self)
    return [place % self.num_classes for place in self._rows]

  def objects(self, index: int) -> Marks:
    """See `DataSource`: what is visible of every digit."""
    record = self[index]
    if not is_marked(record) or "masks" not in record:
      raise ValueError(
        "scenes with --config.data.labels=False hide their objects; set it to "
        "True"
      )
    return {
      "size": (self.size, self.size),
      "boxes": record["boxes"],
      "classes": record["classes"],
      "ignored": np.zeros(len(record["classes"]), bool),
      "area": record["masks"].sum((1, 2)).astype(np.float32),
      "masks": record["masks"],
    }

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of what determines the images; labels play no part."""
    fields = dataclasses.asdict(self)
    del fields["labels"], fields["per_class"], fields["length"]
    fields["split"] = (self._part.number, self._rows.start, self._rows.stop)
    text = f"scenes {sorted(fields.items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def describe(self, index: int) -> str:
    """What to call a record in an error message."""
    return f"scenes[{self.split}] record {index}"

  def __len__(self) -> int:
    return len(self._rows)

  def __reduce__(self) -> tuple[type[Source], tuple[object, ...]]:
    # Scenes that were made already do not travel with it.
    fields = dataclasses.fields(self)
    return type(self), tuple(getattr(self, field.name) for field in fields)

  @functools.cached_property
  def _made(self) -> dict[int, Record]:
    return _made_of(self)

  def __getitem__(self, index: int) -> Record:
    place = self._rows[index]
    if place in self._made:
      return self._made[place]
    record = self._scene(place, index % len(self))
    image = record["image"]
    if isinstance(image, np.ndarray) and len(self) * image.nbytes <= _KEPT:
      image.flags.writeable = False  # all who ask share it
      self._made[place] = record
    return record

  def _scene(self, place: int, number: int) -> Record:
    """Scene `place` of the split, which is record `number`."""
    part = self._part
    # The lowest word counts what is drawn.
    counter = [0, 0, part.number, place]
    philox = np.random.Philox(key=[self.seed, 0], counter=counter)
    rng = np.random.Generator(philox)
    image = scene_parts.background(part, self.size, rng)
    kinds = self._kinds(place, rng)
    image, masks, kinds = self._pasted(image, kinds, rng)
    noise = rng.standard_normal(image.shape, np.float32)
    image = np.rint(image + np.float32(self.noise) * noise)
    record: Record = {
      "image": np.clip(image, 0, 255).astype(np.uint8),
      "label": -1,
      "id": number,
    }
    return self._marked(record, masks, kinds) if self.labels else record

  def _kinds(self, place: int, rng: np.random.Generator) -> list[int]:
    """Classes of the digits, the lowest first."""
    classes, (low, high) = len(self._names), self._bounds
    if self._single:
      return [place % classes]
    count = low + int((high - low + 1) * rng.random())
    return [int(classes * draw) for draw in rng.random(count)]

  def _pasted(
    self,
    image: Float32[np.ndarray, "s s 3"],
    kinds: list[int],
    rng: np.random.Generator,
  ) -> tuple[
    Float32[np.ndarray, "s s 3"], Bool[np.ndarray, "k s s"], list[int]
  ]:
    """The image with its digits, masks and classes of those with room."""
    masks, kept = np.zeros((0, self.size, self.size), bool), []
    for kind in kinds:
      covered, wider = self._placed(kind, masks, rng)
      if covered is None:
        continue
      masks, kept = wider, [*kept, kind]
      colour = paste.contrasting(image[masks[-1]].mean(0), rng)
      image = paste.blend(image, covered, colour)
    return image, masks, kept

  def _placed(
    self,
    kind: int,
    masks: Bool[np.ndarray, "k s s"],
    rng: np.random.Generator,
  ) -> tuple[Float32[np.ndarray, "s s"] | None, Bool[np.ndarray, "n s s"]]:
    """What a digit covers, and all masks with its own; None without room."""
    every = scene_parts.glyphs(self._part.digits, int(self._names[kind]))
    glyph = every[int(len(every) * rng.random())]
    sides = self.min_size * self.size, self.max_size * self.size
    for _ in range(_PLACES):
      pose = paste.random_pose(
        rng.random(4), self.size, sides=sides, rotation=self.rotation
      )
      covered = paste.opacity(glyph, pose, self.size)
      wider = np.concatenate([masks, covered[None] >= 0.5])
      if not len(masks) or _all_seen(wider):
        return covered, wider
    return None, masks

  def _marked(
    self, record: Record, masks: Bool[np.ndarray, "k s s"], kinds: list[int]
  ) -> MarkedRecord:
    """With label, mask, and what there is to say of every digit."""
    masks, classes = paste.visible(masks), np.array(kinds, np.int32)
    mask = ((1 + classes)[:, None, None] * masks).sum(0)
    boxes = [paste.bounding_box(each) for each in masks]
    return {
      **record,
      "label": kinds[0] if self._single else -1,
      "mask": mask.astype(np.int16),
      "classes": classes,
      "boxes": np.array(boxes, np.float32),
      "masks": masks,
    }


@functools.lru_cache(maxsize=_SOURCES)
def _made_of(source: Source) -> dict[int, Record]:
  """Scenes by their places in the split; sources that are equal share them."""
  del source
  return {}


def _all_seen(masks: Bool[np.ndarray, "k s s"]) -> bool:
  """Whether most of every digit is visible."""
  shown = paste.visible(masks).sum((1, 2))
  return bool((shown >= (1 - _HIDDEN) * masks.sum((1, 2))).all())


def _check(source: Source) -> None:
  """Raises ValueError where a field is out of range."""
  for name, (holds, text) in _allowed(source).items():
    if not holds:
      raise ValueError(
        f"scenes.{name}={getattr(source, name)!r}; it must be {text}"
      )
  if source.per_class and source.digits not in (1, (1, 1)):
    raise ValueError(
      f"scenes.per_class={source.per_class} needs one digit in every scene, "
      f"and digits={source.digits}; set digits=1 or per_class=0"
    )


def _allowed(source: Source) -> dict[str, tuple[bool, str]]:
  """{field: (whether its value will do, what will)}."""
  kept, low = source.classes, source.min_size
  digits = len(set(kept) & set(range(10)))
  count = "a number from 1 on, or two of them, (least, most)"
  pixels = f"at least {_SMALLEST} pixels of size={source.size}"
  return {
    "classes": (digits == len(kept), "different digits 0 to 9"),
    "digits": (_is_count(source.digits), count),
    "size": (source.size >= 1, "at least 1"),
    "length": (source.length >= 1, "at least 1"),
    "seed": (source.seed >= 0, "at least 0"),
    "per_class": (source.per_class >= 0, "at least 0 (all)"),
    "min_size": (low * source.size >= _SMALLEST, pixels),
    "max_size": (low <= source.max_size <= 1, f"from min_size={low} to 1"),
    "rotation": (0 <= source.rotation <= 180, "in [0, 180]"),
    "noise": (source.noise >= 0, "at least 0"),
  }


def _is_count(digits: object) -> bool:
  """Whether it is n or (low, high), from 1 on."""
  bounds = digits if isinstance(digits, tuple) else (digits, digits)
  if len(bounds) != 2:
    return False
  low, high = bounds
  return type(low) is int and type(high) is int and 1 <= low <= high
