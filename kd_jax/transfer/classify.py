"""Classification: figures of a classifier on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from kd_jax.data.pipeline import Batches
from kd_jax.interfaces import DataSource
from kd_jax.train import evaluate
from kd_jax.train.views import as_unit
from kd_jax.transfer import confusion
from kd_jax.types import Batch, Variables

_TOP = 5


class Predictions(NamedTuple):
  """What a classifier says about every image, in order.

  Attributes:
    label: what is true.
    predicted: the most likely class.
    confidence: its probability.
  """

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
    figure: see `judge.Judge`.
  """

  student: nn.Module
  mesh: jax.sharding.Mesh
  batches: Callable[[DataSource], Batches]
  figure: str = "top1"

  def __post_init__(self) -> None:
    # Compiled once, however many runs are judged.
    object.__setattr__(self, "_count", jax.jit(self._counted, donate_argnums=0))
    object.__setattr__(self, "_answer", jax.jit(self._answered))

  def figures(
    self, variables: Variables, source: DataSource
  ) -> Mapping[str, float]:
    """{'top1', 'top5' (from 6 classes on), 'mean_per_class'}, in [0, 1].

    Raises:
      ValueError: no image of `source` can be read.
    """
    classes = self.student.num_classes
    zero = {
      "confusion": confusion.zeros(classes),
      "top5": jnp.zeros((), jnp.int32),
    }
    found = evaluate.fold(
      lambda sums, batch: self._count(sums, variables, batch),
      zero,
      self.batches(source),
      self.mesh,
    )
    matrix = confusion.counts(found["confusion"])
    total = matrix.sum()
    if not total:
      raise ValueError(
        "no test image has a label, or none can be read; give labelled images "
        "with --config.test"
      )
    figures = {
      "top1": float(np.trace(matrix) / total),
      "mean_per_class": confusion.mean_per_class(matrix),
    }
    if classes > _TOP:
      figures["top5"] = float(found["top5"] / total)
    return figures

  def predictions(
    self, variables: Variables, source: DataSource
  ) -> Predictions:
    """What the network says about every readable image."""
    found = []
    with self.batches(source) as stream:
      for local in stream:
        batch = evaluate.placed(local, self.mesh)
        answers = evaluate.on_host(self._answer(variables, batch))
        found.append([x[answers[-1] > 0] for x in answers[:-1]])
    return Predictions(*map(np.concatenate, zip(*found, strict=True)))

  def _logits(self, variables: Variables, batch: Batch) -> Float[Array, "n c"]:
    image = as_unit(batch.image)
    taps = self.student.apply(variables, image, train=False)
    return taps["logits"].astype(jnp.float32)

  def _counted(
    self, sums: Mapping[str, Array], variables: Variables, batch: Batch
  ) -> dict[str, Array]:
    logits = self._logits(variables, batch)
    label = jnp.where(batch.mask > 0, batch.label, -1)
    _, top = jax.lax.top_k(logits, min(_TOP, logits.shape[-1]))
    within = (top == label[:, None]).any(-1) & (label >= 0)
    return {
      "confusion": confusion.add(sums["confusion"], label, top[:, 0]),
      "top5": sums["top5"] + within.sum(),
    }

  def _answered(self, variables: Variables, batch: Batch) -> tuple[Array, ...]:
    logits = self._logits(variables, batch)
    likely = jax.nn.softmax(logits).max(-1)
    return batch.label, logits.argmax(-1), likely, batch.mask
