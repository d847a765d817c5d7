"""Batches for the evaluation of detectors: whole images on few canvases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

from kd_jax.data import examples
from kd_jax.data.detection import Detection, put
from kd_jax.data.order import portraits
from kd_jax.data.preprocess import pixels
from kd_jax.data.reading import USUAL
from kd_jax.data.streams import Report, Stream, check_share, share
from kd_jax.interfaces import DataSource


@struct.dataclass
class EvalBatch:
  """One batch of a pass over images; all lie on canvases of one size.

  Attributes:
    image: (n, H, W, 3) uint8, each in the upper left corner.
    size: (n, 2) int32, height and width of the image on its canvas.
    scale: (n, 2) float32, pixels of the canvas per pixel of the image, (x, y).
    index: (n,) int32, which record it is; -1 marks padding.
  """

  image: UInt8[Array, "n H W 3"]
  size: Int[Array, "n 2"]
  scale: Float[Array, "n 2"]
  index: Int[Array, " n"]


def eval_batches(
  source: DataSource,
  views: Detection,
  *,
  batch_size: int,
  limit: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  on_skip: Report | None = None,
) -> Stream[EvalBatch]:
  """One pass: first all landscape images, then the portrait ones.

  The last batch of either is filled up with rows of index -1.

  Args:
    source: of records with objects.
    views: its evaluation view is used.
    batch_size: global; every process yields its share of the rows, and all
      processes yield the same number of batches.
    limit: use at most this many of the first records.
    process_index: this process.
    process_count: number of processes.
    on_skip: is told of every record that was skipped; its row has index -1.

  Raises:
    ValueError: a count is out of range; while iterating, where a record cannot
      be decoded.
  """
  check_share(batch_size, process_index, process_count)
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit}; it must be at least 1, or None for all")
  rows = _rows(source, limit, batch_size)
  dataset = grain.MapDataset.source(rows).map(
    _Fetch(examples.Decoded(source), views)
  )
  dataset = share(dataset, batch_size, process_index, process_count)
  dataset = dataset.batch(batch_size // process_count)
  return Stream(USUAL.of(dataset), lambda fields: EvalBatch(**fields), on_skip)


def _rows(
  source: DataSource, limit: int | None, batch_size: int
) -> list[tuple[int, bool]]:
  """(record or -1, whether its canvas is that of portraits) of all rows."""
  count = min(limit or len(source), len(source))
  portrait = portraits(source)[:count]
  if source.sizes() is None:
    image = pixels(examples.Decoded(source).next_readable(0)[0])
    portrait[:] = image.shape[0] > image.shape[1]
  found = []
  for turned in (False, True):
    own = np.flatnonzero(portrait == turned).tolist()
    own += [-1] * (-len(own) % batch_size)
    found += [(index, turned) for index in own]
  return found


@dataclasses.dataclass(frozen=True)
class _Fetch:
  """The row of a record; -1 is padding."""

  source: examples.Decoded
  views: Detection

  def __call__(self, row: tuple[int, bool]) -> Mapping[str, Any]:
    index, portrait = row
    record = self.source.readable(index) if index >= 0 else None
    if record is None:
      skipped = np.int64(index)
      return {**self._nothing(portrait), "skipped": skipped}
    image = pixels(record)
    placed = self.views.eval_placed(image.shape[:2])
    return {
      "image": put(image, placed, placed.canvas, self.views.fill),
      "size": np.array(placed.shown, np.int32),
      "scale": placed.scale.astype(np.float32),
      "index": np.int32(index),
      "skipped": np.int64(-1),
    }

  def _nothing(self, portrait: bool) -> dict[str, Any]:
    canvas = self.views.eval_canvas(portrait=portrait)
    return {
      "image": np.zeros((*canvas, 3), np.uint8),
      "size": np.ones(2, np.int32),
      "scale": np.ones(2, np.float32),
      "index": np.int32(-1),
    }
