"""Some records of a source, as a source of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from kd_jax import interfaces
from kd_jax.types import Marks, Record


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen(interfaces.DataSource):
  """The records `rows` of `source`, with their ids, classes and names.

  Attributes:
    source: where they come from.
    rows: their places there, in the order they have here.
  """

  source: interfaces.DataSource
  rows: np.ndarray

  @interfaces.computed
  def num_classes(self) -> int:
    """As many as the source has, whichever occur here."""
    return self.source.num_classes

  @interfaces.computed
  def class_names(self) -> Sequence[str]:
    """Those of the source."""
    return self.source.class_names

  @interfaces.computed
  def mask_names(self) -> Sequence[str]:
    """Those of the source."""
    return self.source.mask_names

  @interfaces.computed
  def box_names(self) -> Sequence[str]:
    """Those of the source."""
    return self.source.box_names

  @interfaces.computed
  def image_ids(self) -> Sequence[int | str] | None:
    """Those of the source's files, or its places."""
    known = self.source.image_ids
    return known if known is None else [known[row] for row in self.rows]

  @interfaces.computed
  def category_ids(self) -> Sequence[int | str] | None:
    """Those of the source's files."""
    return self.source.category_ids

  @interfaces.computed
  def skip_corrupt(self) -> bool:
    """As in the source."""
    return self.source.skip_corrupt

  @interfaces.computed
  def exif_rotation(self) -> bool:
    """As in the source."""
    return self.source.exif_rotation

  @interfaces.computed_once
  def fingerprint(self) -> str:
    """16 hex digits of the source's and of the rows."""
    rows = np.ascontiguousarray(self.rows, np.int64).tobytes()
    text = self.source.fingerprint.encode()
    return hashlib.sha256(text + rows).hexdigest()[:16]

  def all_labels(self) -> interfaces.Numbers:
    """(n,) label of every record."""
    return np.asarray(self.source.all_labels())[self.rows]

  def objects(self, index: int) -> Marks:
    """Those of the source's record."""
    return self.source.objects(int(self.rows[index]))

  def sizes(self) -> Int64[np.ndarray, "n 2"] | None:
    """Those of the source, of these records."""
    known = self.source.sizes()
    return known if known is None else known[self.rows]

  def object_counts(self) -> Int64[np.ndarray, " n"] | None:
    """Those of the source, of these records."""
    known = self.source.object_counts()
    return known if known is None else known[self.rows]

  def describe(self, index: int) -> str:
    """What the source calls it."""
    return self.source.describe(int(self.rows[index]))

  def ids(self) -> Iterator[str]:
    """The source's names of them."""
    names = list(self.source.ids())
    return (names[row] for row in self.rows)

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> Record:
    return self.source[int(self.rows[index])]
