"""One visit to a record: reading, decoding, views and what belongs to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax.data.bank import Bank
from kd_jax.data.formats.decode import decode
from kd_jax.data.shards.files import LostError
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.types import Record

# So many unreadable records in a row are no accident.
_TRIES = 100


@dataclasses.dataclass(frozen=True)
class Decoded:
  """A source whose images are pixels; errors name the record.

  Attributes:
    source: where records come from.

  Raises:
    ValueError: EXIF tags would turn images that have masks; for a record, it
      cannot be decoded, or its mask is of another size.
  """

  source: DataSource

  def __post_init__(self) -> None:
    if self.source.exif_rotation and self.source.mask_names:
      raise ValueError(
        "exif_rotation would turn images but not their masks; set "
        "--config.data.exif_rotation=False, and write photographs upright"
      )

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    if isinstance(record["image"], bytes):
      image = decode(
        record["image"],
        self.source.describe(index),
        exif_rotation=self.source.exif_rotation,
      )
      record = {**record, "image": image}
    if "mask" in record:
      self._check_mask(index, record)
    return record

  def _check_mask(self, index: int, record: Record) -> None:
    sizes = [np.shape(record[name])[:2] for name in ("image", "mask")]
    if sizes[0] != sizes[1]:
      image, mask = (f"{height}x{width}" for height, width in sizes)
      raise ValueError(
        f"{self.source.describe(index)}: its mask has {mask} pixels, the image "
        f"{image} (height x width); they must be the same. A photograph that "
        "its EXIF tag turns has to be written upright first"
      )

  def readable(self, index: int) -> Record | None:
    """The record; None if it cannot be decoded and may be skipped.

    Raises:
      ValueError: it may not be skipped, or the file with it and many others is
        lost.
    """
    if not self.source.skip_corrupt:
      return self[index]
    try:
      return self[index]
    except LostError:
      raise
    except ValueError:
      return None

  def next_readable(self, index: int) -> tuple[Record, int]:
    """(the record or the next readable one, `index` if skipped, else -1).

    Raises:
      ValueError: none for a long stretch.
    """
    for step in range(_TRIES):
      record = self.readable((index + step) % len(self))
      if record is not None:
        return record, index if step else -1
    raise ValueError(
      f"record {index} and the {_TRIES - 1} after it cannot be read; "
      "skip_corrupt is for single bad files. Without it the first error shows."
    )


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
  """

  source: Decoded
  preprocess: Views
  seed: int
  bank: Bank | None = None
  images: int = 1

  def __call__(self, position: int, index: int) -> Mapping[str, Any]:
    """The visit at a position of the endless stream."""
    # Another stream than those of records, whose second word is 0.
    batch = np.random.Philox(
      key=[self.seed, position // self.images], counter=[0, 1, 0, 0]
    )
    views = self.preprocess.of_batch(np.random.Generator(batch))
    visit = dataclasses.replace(self, preprocess=views).visit
    return visit(position // len(self.source), index)

  def visit(self, epoch: int, index: int) -> Mapping[str, Any]:
    """Views of the record `index` in an epoch, and all about them."""
    record, skipped = self.source.next_readable(index)
    crops = self.preprocess.num_crops
    number, first = epoch, 0
    if self.bank is not None and not self.bank.per_image:
      stored = self.bank.header.crops
      number, first = divmod(epoch * crops, stored)
      number %= self.bank.num_passes

    def rng(crop: int) -> np.random.Generator:
      # The lowest word counts what is drawn.
      counter = [0, 0, first + crop, record["id"]]
      key = [self.seed, number]
      return np.random.Generator(np.random.Philox(key=key, counter=counter))

    views = self.preprocess.train(record, rng)
    rows = () if self.preprocess.canvas else (crops,)
    return {
      **_about(record["label"], 1.0, skipped, rows),
      **views,
      "place": np.array([number, first, index], np.int64),
    }


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
    else:
      image, label, mask = self.preprocess.eval(record), record["label"], 1.0
    return {"image": image[None], **_about(label, mask, skipped, (1,))}


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
