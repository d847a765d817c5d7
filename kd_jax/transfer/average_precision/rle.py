"""Masks as run lengths, in COCO's compressed text; `runs` decodes them."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

Size = tuple[int, int]
"""Height and width, pixels."""


class Rle(TypedDict):
  """A mask as pycocotools knows it."""

  size: list[int]
  counts: str | bytes


def encode(mask: Bool[np.ndarray, "h w"]) -> bytes:
  """The runs of a mask, column by column; its size is kept elsewhere."""
  counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
  assert isinstance(counts, bytes)
  return counts


def encode_all(masks: Bool[np.ndarray, "k h w"]) -> list[bytes]:
  """The same of the masks of an image."""
  return [encode(mask) for mask in masks]


def with_size(counts: bytes, size: Size) -> Rle:
  """As pycocotools wants it."""
  return {"size": [int(size[0]), int(size[1])], "counts": counts}


def area(counts: bytes, size: Size) -> int:
  """Pixels inside."""
  return int(coco_mask.area(with_size(counts, size)))
