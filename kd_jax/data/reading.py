"""How batches are read ahead: threads, processes, and how many."""

from __future__ import annotations

import dataclasses

import grain
from absl import flags


@dataclasses.dataclass(frozen=True)
class Reading:
  """How batches are read ahead, which does not change what is in them.

  Attributes:
    num_workers: worker processes; 0 uses threads only, which is cheaper below
      about 9000 images a second.
    num_threads: threads per process, each builds one batch; 0 is none.
    prefetch: batches built ahead, which cost memory; no more threads than
      this are used.

  Raises:
    ValueError: a number is negative.
  """

  num_workers: int = 0
  num_threads: int = 8
  prefetch: int = 8

  def __post_init__(self) -> None:
    not_negative(**dataclasses.asdict(self))

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


def not_negative(**counts: int) -> None:
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
