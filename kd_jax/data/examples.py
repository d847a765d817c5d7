"""One visit to a record: reading, decoding, views and what belongs to them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kd_jax.data.bank import Bank
from kd_jax.data.formats.decode import decode, jpeg_size
from kd_jax.data.formats.kept import Kept
from kd_jax.data.order import portraits
from kd_jax.data.shards.files import LostError
from kd_jax.data.views import Draw, Views
from kd_jax.interfaces import DataSource
from kd_jax.types import MarkedRecord, Record, is_marked

Reduction = Callable[[int, tuple[int, int]], int]
"""(id of a record, height and width of its JPEG) -> divisor of both."""

# So many unreadable records in a row are no accident.
_TRIES = 100


@dataclasses.dataclass(frozen=True)
class Decoded:
  """A source whose images are pixels; errors name the record.

  Attributes:
    source: where records come from.
    kept: records that were decoded before; None keeps none.

  Raises:
    ValueError: EXIF tags would turn images that have masks or boxes; for a
      record, it cannot be decoded, or its mask or the image that its boxes are
      of has another size.
  """

  source: DataSource
  kept: Kept | None = None

  def __post_init__(self) -> None:
    drawn_on = self.source.mask_names or self.source.box_names
    if self.source.exif_rotation and drawn_on:
      raise ValueError(
        "exif_rotation would turn images but not their masks and boxes; set "
        "--config.data.exif_rotation=False, and write photographs upright"
      )

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    return self.read(index)

  def read(self, index: int, reduction: Reduction | None = None) -> Record:
    """The record; `reduction` may have a JPEG decoded smaller.

    Then 'whole' is the height and width that it has.
    """
    if self.kept is None or reduction:
      return self._decoded(index, reduction)
    record = self.kept.get(index)
    if record is None:
      record = self._decoded(index)
      self.kept.offer(index, record)
    return record

  def _decoded(self, index: int, reduction: Reduction | None = None) -> Record:
    record = self.source[index]
    data = record["image"]
    if isinstance(data, bytes):
      turn = self.source.exif_rotation
      whole = jpeg_size(data, exif_rotation=turn) if reduction else None
      divisor = reduction(record["id"], whole) if reduction and whole else 1
      image = decode(
        data,
        self.source.describe(index),
        exif_rotation=turn,
        reduction=divisor,
      )
      record: Record = {**record, "image": image}
      if whole and divisor > 1:
        record["whole"] = whole
    if "mask" in record:
      self._check_size(index, record, "mask has", np.shape(record["mask"]))
    if is_marked(record) and "size" in record:
      self._check_size(index, record, "boxes are of", record["size"])
    return record

  def _check_size(
    self, index: int, record: Record, what: str, size: tuple[int, ...]
  ) -> None:
    sizes = [tuple(np.shape(record["image"])[:2]), tuple(size)]
    if sizes[0] != sizes[1]:
      image, other = (f"{height}x{width}" for height, width in sizes)
      raise ValueError(
        f"{self.source.describe(index)}: its {what} {other} pixels, the image "
        f"{image} (height x width); they must be the same. A photograph that "
        "its EXIF tag turns has to be written upright first"
      )

  def readable(
    self, index: int, reduction: Reduction | None = None
  ) -> Record | None:
    """The record, see `read`; None if it cannot be decoded and may be skipped.

    Raises:
      ValueError: it may not be skipped, or the file with it and many others is
        lost.
    """
    if not self.source.skip_corrupt:
      return self.read(index, reduction)
    try:
      return self.read(index, reduction)
    except LostError:
      raise
    except ValueError:
      return None

  def next_readable(
    self, index: int, reduction: Reduction | None = None
  ) -> tuple[Record, int]:
    """(the record or the next readable one, `index` if skipped, else -1).

    The next one is of the same orientation, where the source knows it: it may
    have to share a canvas with others.

    Raises:
      ValueError: none for a long stretch.
    """
    for row in itertools.islice(self._alike(index), _TRIES):
      record = self.readable(row, reduction)
      if record is not None:
        return record, index if row != index else -1
    raise ValueError(
      f"record {index} and the {_TRIES - 1} after it cannot be read; "
      "skip_corrupt is for single bad files. Without it the first error shows."
    )

  def _alike(self, index: int) -> Iterator[int]:
    """The record, and all after it that are portraits if it is one."""
    yield index
    turned, count = portraits(self.source), len(self)
    for place in range(index + 1, index + count):
      if turned[place % count] == turned[index]:
        yield place % count


def _with(record: Record, image: np.ndarray) -> Record:
  """The record with its pixels."""
  if is_marked(record):
    marked: MarkedRecord = {**record, "image": image}
    return marked
  return {**record, "image": image}


@dataclasses.dataclass(frozen=True)
class Train:
  """Augmented views; what they are follows from (seed, epoch, id, crop).

  Attributes:
    source: of pixels.
    preprocess: how they are augmented.
    seed: of the augmentation.
    bank: stores what a teacher said about its crops; None if there is none.
      Then epochs go round over the crops that it has.
    images: records in a global batch.
    rows: records of an epoch, those that come twice included; 0 is the length
      of the source.
  """

  source: Decoded
  preprocess: Views
  seed: int
  bank: Bank | None = None
  images: int = 1
  rows: int = 0

  def __call__(self, position: int, index: int) -> Mapping[str, Any]:
    """The visit at a position of the endless stream."""

    def shared() -> np.random.Generator:
      # Another stream than those of records, whose second word is 0.
      key = [self.seed, position // self.images]
      return np.random.Generator(
        np.random.Philox(key=key, counter=[0, 1, 0, 0])
      )

    views, one = self.preprocess.of_batch(shared), self
    if views is not self.preprocess:
      one = dataclasses.replace(self, preprocess=views)
    return one.visit(position // (self.rows or len(self.source)), index)

  def visit(self, epoch: int, index: int) -> Mapping[str, Any]:
    """Views of the record `index` in an epoch, and all about them."""
    crops = self.preprocess.num_crops
    number, first = epoch, 0
    if self.bank is not None and not self.bank.per_image:
      stored = self.bank.header.crops
      number, first = divmod(epoch * crops, stored)
      number %= self.bank.num_passes

    def draw(identity: int) -> Draw:
      return functools.partial(self._generator, number, first, identity)

    def reduction(identity: int, size: tuple[int, int]) -> int:
      return self.preprocess.reduction(size, draw(identity))

    record, skipped = self.source.next_readable(
      index, reduction if self.preprocess.reduces else None
    )
    views = self.preprocess.train(record, draw(record["id"]))
    rows = () if self.preprocess.canvas else (crops,)
    return {
      **_about(record["label"], 1.0, skipped, rows),
      **views,
      "place": np.array([number, first, index], np.int64),
    }

  def _generator(
    self, number: int, first: int, identity: int, crop: int
  ) -> np.random.Generator:
    # The lowest word counts what is drawn.
    counter = [0, 0, first + crop, identity]
    key = [self.seed, number]
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclasses.dataclass(frozen=True)
class Eval:
  """Central views; index `count` and above is padding.

  Attributes:
    source: of pixels.
    preprocess: how they are cut.
    count: number of records.
  """

  source: Decoded
  preprocess: Views
  count: int

  def __call__(self, index: int) -> Mapping[str, Any]:
    """The view of a record; one that is skipped has mask 0."""
    record = self.source.readable(index) if index < self.count else None
    skipped = index if record is None and index < self.count else -1
    if record is None:
      size = self.preprocess.image_size
      image, label, mask = np.zeros((size, size, 3), np.uint8), -1, 0.0
      cuts = self.preprocess.other_cuts
      others = {k: np.zeros((s, s, 3), np.uint8) for k, (s, _) in cuts.items()}
    else:
      image, label, mask = self.preprocess.eval(record), record["label"], 1.0
      others = self.preprocess.others(record)
    found = {"image": image[None], **_about(label, mask, skipped, (1,))}
    more = {name: view[None] for name, view in others.items()}
    return {**found, "views": more} if more else found


@dataclasses.dataclass(frozen=True)
class Attach:
  """Adds to a batch what the bank has about its crops.

  Attributes:
    bank: where it is.
    crops: views per image, a divisor of the bank's unless that is per image.
  """

  bank: Bank
  crops: int

  def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch with {'teacher': {array: (images, crops, ...)}}.

    Raises:
      ValueError: stored bytes are damaged, or the images of the bank had
        other sizes or crops.
    """
    number, first, index = batch["place"].T
    if self.bank.per_image:
      number, first = np.zeros_like(number), np.zeros_like(first)
    stored = self.bank.read(number, index)
    kept = stored.pop("geometry")
    wanted = batch["geometry"]
    rows = np.arange(len(index))[:, None]
    slots = first[:, None] + np.arange(self.crops)
    if self.bank.per_image:
      slots = np.zeros_like(slots)
      self._compare(kept[rows, slots][..., 5:], wanted[..., 5:], index)
    else:
      self._compare(kept[rows, slots], wanted, index)
    teacher = {name: values[rows, slots] for name, values in stored.items()}
    if self.bank.per_image:
      teacher["corners"] = corners(wanted)
    return {**batch, "teacher": teacher}

  def _compare(
    self, found: np.ndarray, wanted: np.ndarray, index: np.ndarray
  ) -> None:
    wrong = (found != wanted).any((1, 2))
    if wrong.any():
      raise ValueError(
        f"the bank {self.bank.place} was written with other images: record "
        f"{index[wrong][0]} ({wrong.sum()} of {len(wrong)} in this batch) had "
        "another size or other crops. Write a bank for these images."
      )


def corners(geometry: np.ndarray) -> np.ndarray:
  """(..., 4) top, left, bottom, right as shares of the image, float32."""
  top, left, height, width, _, *size = np.moveaxis(geometry, -1, 0)
  rows, columns = (np.asarray(side, np.float32) for side in size)
  ends = (top / rows, left / columns, (top + height) / rows)
  return np.stack([*ends, (left + width) / columns], -1).astype(np.float32)


def _about(
  label: int, mask: float, skipped: int, shape: tuple[int, ...]
) -> Mapping[str, Any]:
  return {
    "label": np.full(shape, label, np.int32),
    "mask": np.full(shape, mask, np.float32),
    "skipped": np.int64(skipped),
  }
