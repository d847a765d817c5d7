"""A backbone that finds objects: Faster R-CNN and Mask R-CNN.

arXiv:1506.01497 and 1703.06870. The first stage proposes regions, the second
classifies and refines them. Shapes are static: whatever an image has fewer of
is filled up and marked, so that nothing leaves the device in between.

Taps beside those of the backbone, for n images, all boxes in pixels of the
canvas:

- 'objectness' (n, A) and 'anchor_deltas' (n, A, 4) of all A anchors.
- Without truth, detections by falling score: 'boxes' (n, d, 4), 'scores'
  (n, d), 0 where there is none, 'classes' (n, d), -1 where there is none, and
  'masks' (n, d, s, s), probabilities inside the box.
- With truth, what the losses read. Of anchors 'anchor_labels' (n, A), 1 for
  objects, 0 for background, -1 for what is not asked, and 'anchor_targets'
  (n, A, 4). Of regions 'roi_boxes' (n, R, 4), 'roi_classes' (n, R), the number
  of classes for background and -1 for empty slots, 'roi_rows' (n, R), their
  objects, 'class_logits' (n, R, classes + 1) and 'box_deltas'
  (n, R, classes, 4). 'mask_logits' (n, M, s, s, classes) of the first M
  regions, which hold all objects.

Example:
  detector = build(backbone, {"name": "fpn", "num_classes": 80})
  variables = detector.init(jax.random.key(0), images)
  found = detector.apply(variables, images)  # 'boxes', 'scores', 'classes'
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from kd_jax import resolve, trees
from kd_jax.models import backbone, dependence
from kd_jax.models.blocks import maps as maps_lib
from kd_jax.transfer.detection import (
  heads,
  inference,
  parts,
  proposals,
  targets,
)
from kd_jax.transfer.detection.fields import Fields
from kd_jax.transfer.detection.pyramid import Pyramid
from kd_jax.types import STAGES, Objects, Taps

_FORMS = "transfer.detection.forms"


class Detector(Fields):
  """Trained and evaluated as any student.

  Parameters: `backbone`, whose tree is that of the bare network whatever the
  form reads, `neck` if the form has one, `rpn`, `box`, and `mask` with masks.
  Attributes: see `Fields`.
  """

  if TYPE_CHECKING:

    def __hash__(self) -> int:
      """By the fields."""
      ...

  def setup(self) -> None:
    """The layers beside the backbone."""
    self.neck = self.form.neck(self.dtype)
    self.rpn = heads.Rpn(len(self.form.cells[0]), self.dtype)
    self.box = self.form.box(self.num_classes, self.dtype)
    if self.masks:
      self.mask = self.form.mask(self.num_classes, self.dtype)

  def __call__(
    self,
    x: Float[Array, "n h w c"],
    *,
    train: bool = False,
    begin: str = "stem",
    end: str = "head",
    train_from: str = "stem",
    truth: Objects | None = None,
    size: Int[Array, "n 2"] | None = None,
  ) -> Taps:
    """Runs the backbone as far as the form reads it, and both stages.

    Args:
      x: RGB images in [0, 1], in the upper left corner of their canvas.
      train: batch statistics and stochastic depth; needs
        mutable=['batch_stats'] and the rng 'dropout'.
      begin: first stage of the backbone that runs; with end='head' it must be
        'stem'.
      end: last stage of the backbone; both stages run with 'head'.
      train_from: earlier stages of the backbone run as with train=False, and
        with 'head' all of it: the heads alone are trained.
      truth: what is in the images; the second stage then looks at regions
        that are chosen by it, for the losses. Needs the rng 'dropout' unless
        sample='first'.
      size: of the images; None is that of the truth, or the whole canvas.

    Returns:
      The backbone's taps, and those named at the top of this file.

    Raises:
      ValueError: the form does not suit the backbone, or see `Backbone`.
    """
    backbone.one_of("train_from", train_from, STAGES)
    if end == "head":
      backbone.one_of("begin of a detector", begin, ("stem",))
    call = _Call(train, train and train_from != "head", train_from)
    last = self._last_stage() if end == "head" else end
    taps = dict(self._run(x, call, begin=begin, end=last))
    if end != "head":
      return taps
    taps.pop("logits", None)  # Without a classifier they are 'pooled'.
    if truth is not None and size is None:
      size = truth.size
    return {**taps, **self._stages(taps, x, call, truth, size)}

  def _stages(
    self,
    taps: Taps,
    x: Array,
    call: _Call,
    truth: Objects | None,
    size: Int[Array, "n 2"] | None,
  ) -> Taps:
    """The taps of both stages."""
    pyramid = self._pyramid(taps, x, size)
    objectness, deltas = self.rpn(pyramid.maps)
    found = {
      "objectness": jnp.concatenate(objectness, 1),
      "anchor_deltas": jnp.concatenate(deltas, 1),
    }
    if self.is_initializing():
      self._made(pyramid, call)
      return found
    proposed = pyramid.propose(
      objectness, deltas, threshold=self.nms, learning=truth is not None
    )
    if truth is None:
      return {**found, **self._detected(pyramid, proposed, call)}
    return {**found, **self._asked(pyramid, proposed, truth, call)}

  def _last_stage(self) -> str:
    """The last stage that the form reads; all of them give the whole tree."""
    return "head" if self.is_initializing() else self.form.END

  def _run(self, x: Array, call: _Call, *, begin: str, end: str) -> Taps:
    """The backbone, see `norm`."""
    frozen = nn.intercept_methods(parts.with_running_statistics)
    with frozen if self.norm == "frozen" else contextlib.nullcontext():
      return self.backbone(
        x,
        train=call.backbone,
        begin=begin,
        end=end,
        train_from=call.train_from,
      )

  def _pyramid(
    self, taps: Taps, image: Array, size: Int[Array, "n 2"] | None
  ) -> Pyramid:
    """The maps that both stages look at."""
    canvas = maps_lib.size_of(image)
    maps = self.form.inputs(self.backbone, taps, canvas)
    strides = self.form.strides(maps, canvas)
    if size is None:
      size = jnp.tile(jnp.array(canvas, jnp.int32), (len(image), 1))
    if self.neck is not None:
      maps = self.neck(maps)
    return Pyramid(self.form, maps, strides, size)

  def _look(
    self, pyramid: Pyramid, boxes: Float[Array, "n r 4"], call: _Call
  ) -> heads.Said:
    """What the box head says of regions, image by image."""
    x = pyramid.pooled(boxes, self.form.pooled)
    tail = self.form.TAIL
    with parts.per_region(boxes.shape[1]):
      if tail:
        x = self._run(x, call, begin=tail, end=tail)[tail]
      return self.box(x, train=call.train and self.norm != "frozen")

  def _masks(
    self,
    pyramid: Pyramid,
    boxes: Float[Array, "n r 4"],
    said: heads.Said | None,
    call: _Call,
  ) -> Float[Array, "n r s s classes"]:
    """Logits of masks in regions.

    Args:
      pyramid: of the images.
      boxes: of the regions.
      said: of the same regions and perhaps of more; None has it said.
      call: how the network runs.
    """
    images, number = boxes.shape[:2]
    if self.form.mask_pooled:
      x = pyramid.pooled(boxes, self.form.mask_pooled)
    else:
      said = self._look(pyramid, boxes, call) if said is None else said
      x = said.features.reshape(images, -1, *said.features.shape[1:])
      x = x[:, :number].reshape(-1, *x.shape[2:])
    found = self.mask(x)
    return found.reshape(images, number, *found.shape[1:])

  def _made(self, pyramid: Pyramid, call: _Call) -> None:
    """Creates the parameters of the second stage, without suppression."""
    boxes = jnp.zeros((len(pyramid.size), 1, 4))
    said = self._look(pyramid, boxes, call)
    if self.masks:
      self._masks(pyramid, boxes, said, call)

  def _detected(
    self, pyramid: Pyramid, proposed: proposals.Proposals, call: _Call
  ) -> Taps:
    """The taps of detections."""
    found = inference.detect_all(
      self._look(pyramid, proposed.boxes, call),
      proposed,
      pyramid.size,
      least=self.score,
      threshold=self.test_nms,
      count=self.detections,
    )
    taps = found._asdict()
    if self.masks:
      masks = self._masks(pyramid, found.boxes, None, call)
      taps["masks"] = nn.sigmoid(inference.own(masks, found.classes))
    return taps

  def _asked(
    self,
    pyramid: Pyramid,
    proposed: proposals.Proposals,
    truth: Objects,
    call: _Call,
  ) -> Taps:
    """The taps that the losses read."""
    images = len(pyramid.size)
    keys = self._keys(images)
    rule = targets.Sampling(self.rpn_batch, self.rpn_fraction, *self.rpn_iou)
    label, target = targets.batch_of_anchors(
      keys[0], np.concatenate(pyramid.anchors), truth, rule
    )
    rule = targets.Sampling(
      self.box_batch, self.box_fraction, self.box_iou, self.box_iou
    )
    regions = targets.batch_of_proposals(
      keys[1], proposed, truth, rule, self.num_classes
    )
    said = self._look(pyramid, regions.boxes, call)
    taps = {
      "anchor_labels": label,
      "anchor_targets": target,
      "roi_boxes": regions.boxes,
      "roi_classes": regions.classes,
      "roi_rows": regions.rows,
      "class_logits": said.logits.reshape(images, self.box_batch, -1),
      "box_deltas": said.deltas.reshape(images, self.box_batch, -1, 4),
    }
    if self.masks:
      boxes = regions.boxes[:, : self.objects_at_most]
      taps["mask_logits"] = self._masks(pyramid, boxes, said, call)
    return taps

  def _keys(self, images: int) -> tuple[Array | None, Array | None]:
    """For the anchors and the regions of every image."""
    if self.sample == "first":
      return None, None
    first, second = jax.random.split(self.make_rng("dropout"))
    return jax.random.split(first, images), jax.random.split(second, images)


class _Call(NamedTuple):
  """How the network runs: what trains, and what the backbone is told."""

  train: bool
  backbone: bool
  train_from: str


def build(net: backbone.Backbone, fields: Mapping[str, Any]) -> Detector:
  """A detector from the fields of a config.

  Args:
    net: the network, without classifier.
    fields: 'name', a file of `detection.forms`, and fields of its `Form` and
      of `Detector`.

  Raises:
    ValueError: a field that is unknown, missing or of the wrong type.
  """
  name = fields.get("name", "")
  form = resolve.symbol(_FORMS, name, "Form")
  outer = {f.name for f in dataclasses.fields(Detector) if f.init}
  outer -= {"backbone", "form", "parent", "name"}
  inner = {f.name for f in dataclasses.fields(form)}
  for field in fields:
    if field not in outer | inner | {"name"}:
      known = resolve.near(field, outer | inner)
      raise ValueError(
        f"detector {name!r} has no field {field!r}; it has {known}"
      )
  what = f"detector {name!r}"
  form = resolve.construct(
    form, {k: v for k, v in fields.items() if k in inner}, what
  )
  own = {k: v for k, v in fields.items() if k in outer}
  return resolve.construct(
    Detector, {"backbone": net, "form": form, **own}, what
  )


def unread(model: Detector) -> tuple[str, ...]:
  """Paths of parameters that are not to be trained, for `Phase.frozen`.

  What nothing depends on (it is there to take pre-trained weights) and, with
  norm='frozen', scales and biases of the backbone's BatchNorms.

  Args:
    model: the network.

  Returns:
    Paths of leaves, below 'student'.

  Raises:
    ValueError: the form does not suit the backbone.
  """
  taps = ("boxes", "masks") if model.masks else ("boxes",)
  behind = dependence.parameters(model, taps)
  read = frozenset().union(*behind.values())
  shapes = backbone.variable_shapes(model)
  every = trees.flatten(shapes["params"])
  found = [path for path in every if path not in read]
  if model.norm == "frozen":
    stats = trees.flatten(shapes.get("batch_stats", {}).get("backbone", {}))
    norms = {f"backbone/{path.rpartition('/')[0]}" for path in stats}
    found += [p for p in every if p in read and p.rpartition("/")[0] in norms]
  return tuple(f"student/{path}" for path in found)
