"""Segmentation: what the network learns, and what it is judged by."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, UInt8

from kd_jax import interfaces, losses
from kd_jax.data.streams import Stream
from kd_jax.data.windows import DenseBatch
from kd_jax.interfaces import DataSource
from kd_jax.train import evaluate
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.views import as_unit
from kd_jax.transfer import confusion, windows
from kd_jax.transfer.judge import on_devices
from kd_jax.transfer.segmenter import Segmenter
from kd_jax.types import (
  Batch,
  Needs,
  Phase,
  Stats,
  Taps,
  Teacher,
  Variables,
)

_LOGITS = {"ce": "logits", "aux": "aux_logits"}
_HEADS = {"ce": "student/head", "aux": "student/aux"}


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Cross-entropy of every labelled pixel, of the head and an auxiliary one.

  Attributes:
    terms: 'ce', and 'aux' if the network has an auxiliary head.
    trains: 'network', or 'head' for the heads alone, on a backbone in
      evaluation mode.
    unread: parameters that no logits depend on, see `segmenter.unread`.

  Raises:
    ValueError: a value that is not allowed.
  """

  terms: tuple[str, ...] = ("ce",)
  trains: str = "network"
  unread: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    if not self.terms or not set(self.terms) <= set(_LOGITS):
      raise ValueError(
        f"segmentation has the loss terms {sorted(_LOGITS)}; got {self.terms}. "
        "Set --config.losses.ce and, with an auxiliary head, losses.aux"
      )

  @property
  def _heads(self) -> tuple[str, ...]:
    """Where the parameters of the heads are that get a gradient."""
    return tuple(_HEADS[term] for term in self.terms)

  def phases(self) -> tuple[Phase, ...]:
    """One phase, over all parameters or the heads."""
    whole = self.trains == "network"
    return (
      Phase(
        "segmentation",
        self.losses,
        Needs(student=tuple(_LOGITS[term] for term in self.terms)),
        trainable=("student",) if whole else self._heads,
        frozen=self.unread,
        train_from="stem" if whole else "head",
      ),
    )

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over the pixels that are not ignored."""
    del variables, teacher
    label = batch.label.reshape(-1).astype(jnp.int32)
    found = {}
    for term in self.terms:
      logits = taps[_LOGITS[term]]
      flat = logits.reshape(-1, logits.shape[-1])
      found[term] = losses.cross_entropy(flat, label)
    return found, {}


class Example(NamedTuple):
  """One image with its mask and what the network says, for people.

  Attributes:
    image: as it is evaluated.
    truth: class of every pixel, -1 where it is ignored.
    predicted: the same, of the network.
  """

  image: UInt8[np.ndarray, "h w 3"]
  truth: Int[np.ndarray, "h w"]
  predicted: Int[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """Mean IoU and its relatives, counted on the devices.

  Attributes:
    student: the network.
    mesh: the devices.
    batches: a fresh closeable pass over the evaluation views of a source.
    crop: side of the windows, pixels.
    mirror: whether windows are also seen mirrored.
    figure: see `judge.Judge`.
  """

  student: Segmenter
  mesh: jax.sharding.Mesh
  batches: Callable[[DataSource], Stream[DenseBatch]]
  crop: int
  mirror: bool
  figure: str = "miou"

  def figures(
    self, variables: Variables, source: DataSource
  ) -> Mapping[str, float]:
    """'miou', 'pixel_accuracy' and others, see `confusion.segmentation`.

    Raises:
      ValueError: no pixel of `source` has a label.
    """
    return confusion.segmentation(self.counts(variables, source))

  def counts(
    self, variables: Variables, source: DataSource
  ) -> confusion.Matrix:
    """The confusion matrix of the pixels of `source`."""
    variables = on_devices(variables, self.mesh)
    zero = confusion.zero(self.student.num_classes)
    with self.batches(source) as stream:
      found = evaluate.fold(
        lambda total, batch: self._count(total, variables, batch),
        mesh_lib.place(zero, self.mesh),
        (mesh_lib.put_batch(batch, self.mesh) for batch in stream),
      )
    return confusion.finished(found)

  def examples(
    self, variables: Variables, source: DataSource, count: int
  ) -> Iterator[Example]:
    """The first `count` images; on one process, for it needs whole images."""
    variables = on_devices(variables, self.mesh)
    with self.batches(source) as stream:
      yield from itertools.islice(self._said(variables, stream), count)

  def _said(
    self, variables: Variables, stream: Iterable[DenseBatch]
  ) -> Iterator[Example]:
    for local in stream:
      batch = mesh_lib.put_batch(local, self.mesh)
      said = np.asarray(self._answer(variables, batch))
      for row in np.flatnonzero(local.mask > 0).tolist():
        yield _example(local, said, row)

  # Compiled once, however many runs are judged.
  @functools.cached_property
  def _count(
    self,
  ) -> Callable[[confusion.Counts, Variables, DenseBatch], confusion.Counts]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._counted, out_shardings=whole)

  @functools.cached_property
  def _answer(self) -> Callable[[Variables, DenseBatch], Int[Array, "n h w"]]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._answered, out_shardings=whole)

  def _logits(
    self, variables: Variables, image: Num[Array, "n h w 3"]
  ) -> Float[Array, "n h w classes"]:
    return self.student.apply(variables, as_unit(image), train=False)["logits"]

  def _answered(
    self, variables: Variables, batch: DenseBatch
  ) -> Int[Array, "n h w"]:
    return windows.predictions(
      lambda image: self._logits(variables, image),
      batch,
      (self.crop, self.crop),
      mirror=self.mirror,
    )

  def _counted(
    self, total: confusion.Counts, variables: Variables, batch: DenseBatch
  ) -> confusion.Counts:
    return windows.counted(total, self._answered(variables, batch), batch)


def _example(batch: DenseBatch, said: np.ndarray, row: int) -> Example:
  """One row of a batch, without what its canvases add."""
  view = batch.views[0]
  high, wide = view.size[row]
  rows, columns = batch.size[row]
  return Example(
    image=np.asarray(view.image[row, :high, :wide]),
    truth=np.asarray(batch.label[row, :rows, :columns]),
    predicted=said[row, :rows, :columns],
  )
