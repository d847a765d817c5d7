"""From a config to the plan of a detection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.build import images, networks, transfer
from kd_jax.data import detection_batches
from kd_jax.data.detection import Detection
from kd_jax.data.streams import Stream
from kd_jax.interfaces import DataSource
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.inputs import Inputs
from kd_jax.transfer import draws
from kd_jax.transfer.average_precision import rules
from kd_jax.transfer.detect import Judge, Method
from kd_jax.transfer.detection import detector
from kd_jax.transfer.detection.detector import Detector
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.precise_bn import Precise
from kd_jax.types import Variables

initial = transfer.initial_backbone


def plan(config: ConfigDict, where: str | Path) -> Plan[Judge]:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'detect'.
    where: the workdir; nothing is written.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  train = images.source(config.data.to_dict())
  test = images.source(config.test.to_dict(), "test")
  _check_boxes(train, test)
  student, wanted = _student(config.to_dict(), train), transfer.protocol(config)
  views = resolve.construct(
    Detection, config.preprocess.to_dict(), "preprocess"
  )
  _check_counts(train, views)
  terms = tuple(name for name, weight in config.losses.items() if weight)
  transfer.check_mix(config.mix.to_dict(), "boxes")
  transfer.check_evals(wanted.evals, "detection")
  rules.check(config.eval.rules, config.eval.figure, masks=student.masks)
  method = Method(student, terms, wanted.trains, detector.unread(student))

  evaluation = config.eval.to_dict()

  def judge(mesh: jax.sharding.Mesh, skips: SkipLog) -> Judge:
    return _judge(evaluation, student, views, mesh, skips)

  task = transfer.Task(
    student=student,
    views=views,
    method=method,
    judge=judge,
    initial=initial(config),
    classes=0,
    refine=_precise(config.eval.precise_batches, student, method),
  )
  holdout = wanted.holdout if wanted.searches else 0.0
  parts = draws.parts(train, None, holdout)
  return transfer.plan(config, Path(where), task, parts, test)


def _student(config: Mapping[str, Any], train: DataSource) -> Detector:
  """The backbone with its two stages, of the classes of the boxes."""
  backbone = networks.bare(config["student"], config["dtype"])
  own = {"num_classes": len(train.box_names), "dtype": config["dtype"]}
  return detector.build(backbone, {**own, **config["detector"]})


def _judge(
  wanted: Mapping[str, Any],
  student: Detector,
  views: Detection,
  mesh: jax.sharding.Mesh,
  skips: SkipLog,
) -> Judge:
  """What measures the network."""

  def batches(
    source: DataSource,
  ) -> Stream[detection_batches.EvalBatch]:
    return detection_batches.eval_batches(
      source,
      views,
      batch_size=wanted["batch_size"],
      limit=wanted["limit"] or None,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_skip=skips.report(source),
    )

  return Judge(
    student,
    mesh,
    batches,
    wanted["rules"],
    wanted["figure"],
    wanted["limit"],
  )


def _precise(
  batches: int, student: Detector, method: Method
) -> Callable[[Variables, Inputs], Variables] | None:
  """Measures batch statistics anew before they are judged, where asked for."""
  if student.norm != "precise":
    return None
  if batches < 1:
    raise ValueError(
      f"eval.precise_batches is {batches}; statistics are measured on at least "
      "one. Set --config.eval.precise_batches=200, or detector.norm=train"
    )
  measure, mesh = Precise(student, method.phases()[0]), mesh_lib.make_mesh()

  def refine(variables: Variables, inputs: Inputs) -> Variables:
    with inputs.batches() as stream:
      some = itertools.islice(stream, batches)
      placed = (mesh_lib.put_batch(batch, mesh) for batch in some)
      return measure(variables, placed)

  return refine


def _check_boxes(train: DataSource, test: DataSource) -> None:
  """Whether both sets have boxes, of the same classes."""
  for name, found in (("data", train), ("test", test)):
    if not found.box_names:
      raise ValueError(
        f"config.{name} has no boxes; detection needs a source with boxes, "
        f"such as --config.{name}.name=coco"
      )
  if tuple(train.box_names) != tuple(test.box_names):
    raise ValueError(
      f"the boxes of config.data have {len(train.box_names)} classes and "
      f"those of config.test {len(test.box_names)}, or other names; they must "
      "be the same, in the same order"
    )


def _check_counts(train: DataSource, views: Detection) -> None:
  """Whether there is room for all objects; what is dropped is counted."""
  counts, most = train.object_counts(), views.max_objects
  if counts is None or counts.max() <= most:
    return
  crowded = np.flatnonzero(counts > most)
  said = (
    f"{len(crowded)} of {len(counts)} images have more than "
    f"preprocess.max_objects={most} objects"
  )
  worst = int(counts.argmax())
  example = f"{train.describe(worst)} with {counts[worst]}"
  if views.too_many == "drop":
    left_out = (counts[crowded] - most).sum()
    logging.warning(
      "%s, such as %s: the smallest, %d in all, are not learnt",
      *(said, example, left_out),
    )
  elif not views.min_side:  # small ones might not count
    raise ValueError(
      f"{said}, the most {example}; set "
      f"--config.preprocess.max_objects={counts[worst]}, or "
      "--config.preprocess.too_many=drop to keep the largest"
    )
