"""How batches are read ahead: threads, processes, and how many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import grain
import jax
import numpy as np
from absl import flags

from kd_jax.data.formats.kept import Kept

ExampleT = TypeVar("ExampleT")
"""What a source gives, such as `types.Record`."""


@dataclasses.dataclass(frozen=True)
class Reading:
  """How batches are read ahead, which does not change what is in them.

  Attributes:
    num_workers: worker processes; 0 uses threads only, which is cheaper below
      about 9000 images a second.
    num_threads: threads per process, each builds one batch; 0 is none.
    prefetch: batches built ahead, which cost memory; no more threads than
      this are used.
    keep_gib: GiB of decoded images that stay in memory, so that later epochs
      neither read nor decode them; 0 keeps none.

  Raises:
    ValueError: a number is negative, or worker processes would each keep images
      of their own.
  """

  num_workers: int = 0
  num_threads: int = 8
  prefetch: int = 8
  keep_gib: float = 0.0

  def __post_init__(self) -> None:
    not_negative(**dataclasses.asdict(self))
    if self.keep_gib and self.num_workers:
      raise ValueError(
        f"input.keep_gib={self.keep_gib:g} and input.workers="
        f"{self.num_workers}: every process would keep images of its own; set "
        "--config.input.workers=0, where threads share them"
      )

  def keeps(self) -> Kept | None:
    """An empty place for decoded images, if they are kept."""
    return Kept(int(self.keep_gib * 2**30)) if self.keep_gib else None

  def batched(self, dataset: grain.MapDataset, size: int) -> grain.MapDataset:
    """Whole batches of so many examples."""
    # Grain's own function writes to the memory that worker processes share.
    batch_fn = None if self.num_workers else stacked
    return dataset.batch(size, drop_remainder=True, batch_fn=batch_fn)

  def of(self, dataset: grain.MapDataset) -> grain.IterDataset:
    """The dataset, read so."""
    # Grain's own default builds 500 batches ahead: gigabytes.
    options = grain.ReadOptions(
      num_threads=min(self.num_threads, self.prefetch),
      prefetch_buffer_size=self.prefetch,
    )
    stream = dataset.to_iter_dataset(options)
    if not self.num_workers:
      return stream
    _parse_flags()
    workers = grain.MultiprocessingOptions(self.num_workers)
    return stream.mp_prefetch(workers)


def stacked(examples: Sequence[ExampleT]) -> ExampleT:
  """A batch of examples, as by Grain's own function in half of its time.

  That is a fourth of reading where images are small.

  Args:
    examples: trees of arrays and numbers, of equal shapes.
  """
  return jax.tree.map(lambda *values: np.array(values), *examples)


def not_negative(**counts: float) -> None:
  """Raises ValueError where a count is below zero, and names it."""
  for name, value in counts.items():
    if value < 0:
      raise ValueError(f"{name}={value}; it must be at least 0")


def _parse_flags() -> None:
  # Grain's workers read absl flags, which only absl.app.run parses.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


USUAL = Reading()
"""Where nobody says otherwise."""
