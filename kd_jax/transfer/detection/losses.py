"""The losses of both stages, with Detectron2's normalisers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kd_jax.transfer.detection import inference, targets
from kd_jax.transfer.detection.detector import Detector
from kd_jax.transfer.detection.ops import boxes as boxes_lib
from kd_jax.types import Objects, Taps

Scalar = Float[Array, ""]


def names(detector: Detector) -> tuple[str, ...]:
  """Of the terms that a detector is trained with."""
  mask = ("mask",) if detector.masks else ()
  return ("rpn_class", "rpn_box", "class", "box", *mask)


def terms(taps: Taps, truth: Objects, detector: Detector) -> dict[str, Scalar]:
  """What is to be minimised; their sum is the published loss.

  Args:
    taps: of a detector that was given the truth.
    truth: of the batch.
    detector: its sampling sets the normalisers.

  Returns:
    'rpn_class': cross-entropy of the sampled anchors, 'rpn_box': L1 of those
    that are objects; sums over the size of a full sample. 'class':
    cross-entropy, mean over the sampled regions. 'box': L1 of those that are
    objects, over the number of all. 'mask': cross-entropy, mean over the
    pixels of those that are objects; 0 without any.

  Raises:
    ValueError: the detector has masks and the truth has none.
  """
  found = {**_first_stage(taps, detector), **_second_stage(taps, truth)}
  if detector.masks:
    found["mask"] = _mask(taps, truth)
  return found


def _first_stage(taps: Taps, detector: Detector) -> dict[str, Scalar]:
  label = taps["anchor_labels"]
  total = detector.rpn_batch * label.shape[0]
  entropy = optax.sigmoid_binary_cross_entropy(taps["objectness"], label == 1)
  gap = jnp.abs(taps["anchor_deltas"] - taps["anchor_targets"]).sum(-1)
  return {
    "rpn_class": jnp.sum(jnp.where(label >= 0, entropy, 0)) / total,
    "rpn_box": jnp.sum(jnp.where(label == 1, gap, 0)) / total,
  }


def _second_stage(taps: Taps, truth: Objects) -> dict[str, Scalar]:
  classes, logits = taps["roi_classes"], taps["class_logits"]
  real, background = classes >= 0, logits.shape[-1] - 1
  total = jnp.maximum(real.sum(), 1)
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(classes, 0)
  )
  rows = taps["roi_rows"][..., None]
  boxes = jnp.take_along_axis(truth.boxes, rows, 1)
  target = boxes_lib.encode(taps["roi_boxes"], boxes, inference.WEIGHTS)
  own = jnp.clip(classes, 0, background - 1)[..., None, None]
  deltas = jnp.take_along_axis(taps["box_deltas"], own, 2)[..., 0, :]
  gap = jnp.abs(deltas - target).sum(-1)
  objects = real & (classes < background)
  return {
    "class": jnp.sum(jnp.where(real, entropy, 0)) / total,
    "box": jnp.sum(jnp.where(objects, gap, 0)) / total,
  }


def _mask(taps: Taps, truth: Objects) -> Scalar:
  if not truth.masks.shape[-1]:
    raise ValueError(
      "the detector learns masks, and the objects have none; set "
      "--config.preprocess.masks=True or --config.detector.masks=False"
    )
  logits = taps["mask_logits"]
  _, most, out, _, number = logits.shape
  boxes, classes, rows = (
    taps[name][:, :most] for name in ("roi_boxes", "roi_classes", "roi_rows")
  )
  within = jax.vmap(targets.of_masks, (0, 0, 0, 0, None))
  target = within(truth.masks, truth.frames, boxes, rows, out)
  said = inference.own(logits, jnp.minimum(classes, number - 1))
  entropy = optax.sigmoid_binary_cross_entropy(said, target).mean((2, 3))
  objects = (classes >= 0) & (classes < number)
  return jnp.sum(jnp.where(objects, entropy, 0)) / jnp.maximum(objects.sum(), 1)
