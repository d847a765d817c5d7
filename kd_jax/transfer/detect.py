"""Detection: what the network learns, and what it is judged by."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Array

from kd_jax import interfaces
from kd_jax.data.detection_batches import EvalBatch
from kd_jax.data.streams import Stream
from kd_jax.interfaces import DataSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.views import as_unit
from kd_jax.transfer.average_precision import detections
from kd_jax.transfer.average_precision import truth as truth_lib
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.average_precision.found import Found, originals
from kd_jax.transfer.average_precision.judged import Judged
from kd_jax.transfer.average_precision.rules import RULES
from kd_jax.transfer.average_precision.truth import Truth
from kd_jax.transfer.detection import losses
from kd_jax.transfer.detection.detector import Detector
from kd_jax.transfer.judge import on_devices
from kd_jax.types import (
  Batch,
  Needs,
  Phase,
  Stats,
  Taps,
  Teacher,
  Variables,
)

_HEADS = ("student/neck", "student/rpn", "student/box")
_DETECTED = ("boxes", "scores", "classes", "masks")


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """The losses of Faster R-CNN and Mask R-CNN, see `detection.losses`.

  Attributes:
    detector: the network.
    terms: those that have a weight.
    trains: 'network', or 'head' for all but the backbone, which then runs in
      evaluation mode.
    unread: parameters that are not trained, see `detector.unread`.

  Raises:
    ValueError: terms that are not those of the network.
  """

  detector: Detector
  terms: tuple[str, ...]
  trains: str = "network"
  unread: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    offered = losses.names(self.detector)
    if set(self.terms) != set(offered):
      raise ValueError(
        f"config.losses gives weights to {sorted(self.terms)}, and this "
        f"detector learns all of {sorted(offered)} and nothing else; set "
        "--config.losses.NAME=1.0, or =0.0"
      )

  def phases(self) -> tuple[Phase, ...]:
    """One phase, over all parameters or the heads."""
    whole = self.trains == "network"
    heads = (*_HEADS, "student/mask") if self.detector.masks else _HEADS
    return (
      Phase(
        "detection",
        self.losses,
        Needs(student=("objectness", "class_logits"), truth=True),
        trainable=("student",) if whole else heads,
        frozen=self.unread,
        train_from="stem" if whole else "head",
        # No box is to be learnt where no image of a batch has one.
        may_vanish=("rpn_box", "box", "mask"),
      ),
    )

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The terms of `detection.losses`."""
    del variables, teacher
    return losses.terms(taps, batch.label, self.detector), {}


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """Average precision: found on the devices, matched on the host.

  Attributes:
    student: the network.
    mesh: the devices.
    batches: a fresh closeable pass over the evaluation views of a source.
    rules: one of `average_precision.rules.RULES`.
    figure: see `judge.Judge`.
    limit: only so many of the first images are judged; 0 judges all.
  """

  student: Detector
  mesh: jax.sharding.Mesh
  batches: Callable[[DataSource], Stream[EvalBatch]]
  rules: str = "coco"
  figure: str = "ap"
  limit: int = 0
  _truths: dict[object, Truth] = dataclasses.field(default_factory=dict)

  def figures(
    self, variables: Variables, source: DataSource
  ) -> Mapping[str, float]:
    """'ap', 'ap50' and others; of masks 'mask_ap' and so on.

    Raises:
      ValueError: no image of `source` has an object.
    """
    judged = self.judged(self.truth(source), self.said(variables, source))
    return {k: v for each in judged for k, v in each.figures.items()}

  def judged(self, truth: Truth, said: Detections) -> list[Judged]:
    """What the rules say, of boxes and perhaps of masks."""
    return RULES[self.rules](truth, said)

  def truth(self, source: DataSource) -> Truth:
    """What there is to find in the images of a source, read once."""
    key = source.fingerprint, len(source), tuple(source.box_names)
    if key not in self._truths:
      self._truths[key] = truth_lib.collect(source, self.limit)
    return self._truths[key]

  def said(self, variables: Variables, source: DataSource) -> Detections:
    """All that the network finds in a source; the same on every process."""
    known = self.truth(source)
    return detections.collect(known, self._found(variables, source, known))

  def _found(
    self, variables: Variables, source: DataSource, known: Truth
  ) -> Iterator[Found]:
    variables = on_devices(variables, self.mesh)
    waiting: list[Mapping[str, Array]] = []
    with self.batches(source) as stream:
      for local in stream:
        batch = mesh_lib.put_batch(local, self.mesh)
        waiting.append(self._answer(variables, batch))
        # The devices work on this batch while the host takes the one before.
        if len(waiting) > 1:
          yield from _on_host(waiting.pop(0), known)
    for last in waiting:
      yield from _on_host(last, known)

  # Compiled once per canvas, however many runs are judged.
  @functools.cached_property
  def _answer(self) -> Callable[[Variables, EvalBatch], dict[str, Array]]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._answered, out_shardings=whole)

  def _answered(
    self, variables: Variables, batch: EvalBatch
  ) -> dict[str, Array]:
    taps = self.student.apply(
      variables, as_unit(batch.image), train=False, size=batch.size
    )
    known = {name: taps[name] for name in _DETECTED if name in taps}
    return {**known, "scale": batch.scale, "index": batch.index}


def _on_host(said: Mapping[str, Array], known: Truth) -> list[Found]:
  arrays = {name: np.asarray(value) for name, value in said.items()}
  index, scale = arrays.pop("index"), arrays.pop("scale")
  # Rows of -1 are padding, whatever their size.
  return originals(arrays, index, scale, known.sizes[index])
