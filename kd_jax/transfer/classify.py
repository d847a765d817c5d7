"""Classification: figures of a classifier on labelled images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kd_jax.data.pipeline import Batches
from kd_jax.interfaces import DataSource
from kd_jax.train import evaluate
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.views import as_unit
from kd_jax.transfer import confusion
from kd_jax.transfer.judge import on_devices
from kd_jax.types import Batch, Network, Variables

Total = tuple[confusion.Counts, Int[Array, ""]]

FIGURES = ("top1", "mean_per_class")
"""What can count."""

_TOP = 5


class Predictions(NamedTuple):
  """What a classifier says about every image, in order.

  Attributes:
    row: its place in the source.
    label: what is true.
    predicted: the most likely class.
    confidence: its probability.
  """

  row: Int[np.ndarray, " n"]
  label: Int[np.ndarray, " n"]
  predicted: Int[np.ndarray, " n"]
  confidence: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """Top-1, top-5 and mean per class, counted on the devices.

  Attributes:
    student: the network with its classifier.
    mesh: the devices.
    batches: a fresh closeable pass over the evaluation views of a source.
    figure: see `judge.Judge`; one of `FIGURES`.

  Raises:
    ValueError: another figure.
  """

  student: Network
  mesh: jax.sharding.Mesh
  batches: Callable[[DataSource], Batches]
  figure: str = "top1"

  def __post_init__(self) -> None:
    if self.figure not in FIGURES:
      raise ValueError(
        f"eval.figure is {self.figure!r}; it can be one of {FIGURES}"
      )

  def figures(
    self, variables: Variables, source: DataSource
  ) -> Mapping[str, float]:
    """{'top1', 'top5' (from 6 classes on), 'mean_per_class'}, in [0, 1].

    Raises:
      ValueError: no image of `source` has a label, or none can be read.
    """
    classes = self.student.num_classes
    zero = confusion.zero(classes), jnp.zeros((), jnp.int32)
    zero = mesh_lib.place(zero, self.mesh)
    variables = on_devices(variables, self.mesh)
    with self.batches(source) as stream:
      counts, within = evaluate.fold(
        lambda total, batch: self._count(total, variables, batch),
        zero,
        (mesh_lib.put_batch(batch, self.mesh) for batch in stream),
      )
    matrix = confusion.finished(counts)
    found = confusion.classification(matrix)
    if classes > _TOP:
      found["top5"] = float(within / matrix.sum())
    return found

  def predictions(
    self, variables: Variables, source: DataSource
  ) -> Predictions:
    """What the network says about every readable image."""
    variables = on_devices(variables, self.mesh)
    found: list[tuple[Array, ...]] = []
    with self.batches(source) as stream:
      for local in stream:
        batch = mesh_lib.put_batch(local, self.mesh)
        # Batches take memory: no third one while two are under way.
        jax.block_until_ready(found[-1:])
        found.append(self._answer(variables, batch))
    *answers, mask = map(np.concatenate, zip(*found, strict=True))
    kept = np.flatnonzero(mask > 0)
    rows = _places(len(mask), len(mask) // len(found))
    return Predictions(rows[kept], *(answer[kept] for answer in answers))

  # Compiled once, however many runs are judged.
  @functools.cached_property
  def _count(self) -> Callable[[Total, Variables, Batch], Total]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._counted, out_shardings=whole)

  @functools.cached_property
  def _answer(self) -> Callable[[Variables, Batch], tuple[Array, ...]]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._answered, out_shardings=whole)

  def _logits(self, variables: Variables, batch: Batch) -> Float[Array, "n c"]:
    image = as_unit(batch.image)
    taps = self.student.apply(variables, image, train=False)
    return taps["logits"].astype(jnp.float32)

  def _counted(self, total: Total, variables: Variables, batch: Batch) -> Total:
    logits = self._logits(variables, batch)
    label = jnp.where(batch.mask > 0, batch.label, -1)
    _, top = jax.lax.top_k(logits, min(_TOP, logits.shape[-1]))
    within = (top == label[:, None]).any(-1) & (label >= 0)
    counts, hits = total
    return confusion.add(counts, top[:, 0], label), hits + within.sum(
      dtype=hits.dtype
    )

  def _answered(self, variables: Variables, batch: Batch) -> tuple[Array, ...]:
    logits = self._logits(variables, batch)
    likely = jax.nn.softmax(logits).max(-1)
    return batch.label, logits.argmax(-1), likely, batch.mask


def _places(rows: int, batch_size: int) -> Int[np.ndarray, " n"]:
  """Where every row of a pass stands in its source.

  A batch holds one process's rows after the other's, which take turns there.
  """
  turns = np.arange(rows).reshape(-1, batch_size)
  count = jax.process_count()
  own = turns.reshape(len(turns), -1, count)
  return own.swapaxes(1, 2).reshape(-1)
