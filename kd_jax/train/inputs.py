"""The images that a run trains on, and the batches they come in."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from kd_jax.data import pipeline
from kd_jax.data.bank import Bank
from kd_jax.data.reading import Reading
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.types import Batch, Phase


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Training images; every process reads its share of them.

  Attributes:
    source: where records come from.
    views: how their images are prepared.
    batch_size: global, in views.
    seed: of shuffling and augmentation.
    reading: with how many workers and threads.
    on_skip: is told of every record that cannot be read and is left out.
    bank: what a teacher said about crops; None if no taps are stored.
  """

  source: DataSource
  views: Views
  batch_size: int
  seed: int
  reading: Reading
  on_skip: pipeline.Report | None = None
  bank: Bank | None = None

  @property
  def images(self) -> int:
    """Records in a global batch."""
    return self.batch_size // self.views.num_crops

  def reporting(self, on_skip: pipeline.Report) -> Inputs:
    """The same, telling `on_skip` of the records that are left out."""
    return dataclasses.replace(self, on_skip=on_skip)

  def of_bank(self, bank: Bank | None) -> Inputs:
    """The same, with what `bank` holds."""
    return dataclasses.replace(self, bank=bank)

  def batches(
    self, start_step: int = 0, phase: Phase | None = None
  ) -> pipeline.Batches:
    """Endless training batches from a step on, as `phase` wants them."""
    views = self.views
    if phase is not None:
      views = dataclasses.replace(views, **dict(phase.data))
    return pipeline.train_batches(
      self.source,
      views,
      batch_size=self.batch_size,
      seed=self.seed,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      reading=self.reading,
      on_skip=self.on_skip,
      bank=self.bank,
    )

  def position(self, step: int) -> dict[str, Any]:
    """Where `batches` stands after a step, for checkpoints."""
    return pipeline.position(
      step,
      self.images,
      source=self.source,
      seed=self.seed,
      oriented=self.views.oriented,
    )

  @contextlib.contextmanager
  def fit_batches(
    self, *, augment: bool, examples: int, passes: int = 1
  ) -> Iterator[Iterator[Batch]]:
    """The batches that statistics of the teacher are fitted on.

    Args:
      augment: training views; otherwise the evaluation views, which are padded
        to whole batches. A bank has training views only.
      examples: so many images; 0 takes all of them.
      passes: over them, each in other training views; only with these.
    """
    augment = augment or self.bank is not None
    count = min(examples or len(self.source), len(self.source))
    if augment and self.bank is None:  # else nothing new comes after a pass
      count *= passes
    if augment:
      steps = max(count * self.views.num_crops // self.batch_size, 1)
      stream = self.batches()
    else:
      steps = -(-count // self.batch_size)
      stream = self._evaluation(examples or None)
    with stream:
      yield (next(stream) for _ in range(steps))

  def _evaluation(self, limit: int | None) -> pipeline.Batches:
    return pipeline.eval_batches(
      self.source,
      self.views,
      batch_size=self.batch_size,
      limit=limit,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_skip=self.on_skip,
    )
