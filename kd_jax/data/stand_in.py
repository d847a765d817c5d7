"""What is known of images that are not here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kd_jax import interfaces
from kd_jax.data.sources import splits
from kd_jax.types import Record

# Classes, and records of every split, as TensorFlow Datasets lists them.
KNOWN: Mapping[str, tuple[int, Mapping[str, int]]] = {
  "imagenet2012": (1000, {"train": 1_281_167, "validation": 50_000}),
  "cifar10": (10, {"train": 50_000, "test": 10_000}),
  "cifar100": (100, {"train": 50_000, "test": 10_000}),
}


@dataclasses.dataclass(frozen=True)
class StandIn(interfaces.DataSource):
  """A source without records, for compiling what would read them.

  Attributes:
    fingerprint: of the fields that describe it.
    length: records; 0 if unknown.
    num_classes: see `DataSource`.
  """

  fingerprint: str
  length: int
  num_classes: int

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> Record:
    raise ValueError(
      f"record {index} is not here: config.data could not be opened, and only "
      "its size is known"
    )


def of(fields: Mapping[str, Any], classes: int) -> StandIn:
  """What stands for the source that `fields` describe.

  Args:
    fields: `config.data`.
    classes: of the labels, where the data set is none of `KNOWN`.
  """
  text = json.dumps(dict(fields), sort_keys=True, default=list)
  digest = hashlib.sha256(text.encode()).hexdigest()[:16]
  name = str(fields.get("dataset", "")).split(":")[0]
  if name not in KNOWN:
    return StandIn(digest, 0, classes)
  count, sizes = KNOWN[name]
  parts = [splits.parse(x, sizes) for x in str(fields["split"]).split("+")]
  length = sum(stop - start for _, start, stop in parts)
  if fields.get("per_class"):
    length = min(length, count * int(fields["per_class"]))
  length = round(length * fields.get("percent", 100.0) / 100)
  return StandIn(digest, length, count if fields.get("labels", True) else 0)
