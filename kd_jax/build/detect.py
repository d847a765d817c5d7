"""From a config to the plan of a detection."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

import kd_jax
from kd_jax import resolve
from kd_jax.build import checks, images, networks, transfer
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


def plan(config: ConfigDict, where: str | Path) -> Plan:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'detect'.
    where: the workdir; nothing is written.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  train = images.source(config.data.to_dict())
  test = images.source(config.test.to_dict())
  _check_boxes(train, test)
  student, wanted = _student(config, train), transfer.protocol(config)
  views = resolve.construct(
    Detection, config.preprocess.to_dict(), "preprocess"
  )
  terms = tuple(name for name, weight in config.losses.items() if weight)
  transfer.check_mix(config.mix.to_dict(), "boxes")
  transfer.check_evals(wanted.evals, "detection")
  rules.check(config.eval.rules, config.eval.figure, masks=student.masks)
  method = Method(student, terms, wanted.trains, detector.unread(student))

  def judge(mesh: jax.sharding.Mesh, skips: SkipLog) -> Judge:
    return _judge(config, student, views, mesh, skips)

  task = transfer.Task(
    student=student,
    views=views,
    method=method,
    judge=judge,
    initial=initial(config),
    classes=0,
    refine=_precise(config, student, method),
  )
  holdout = wanted.holdout if wanted.searches else 0.0
  parts = draws.parts(train, None, holdout)
  return transfer.plan(config, Path(where), task, parts, test)


def initial(config: ConfigDict) -> Variables:
  """What the network starts from: weights of the backbone, or nothing."""
  found = networks.initial(config.student.to_dict(), config.init_from)
  return {kind: {"backbone": tree} for kind, tree in found.items()}


def _student(config: ConfigDict, train: DataSource) -> Detector:
  """The backbone with its two stages, of the classes of the boxes."""
  overrides = networks.model_fields(config.student.overrides.to_dict())
  fields = {"dtype": config.dtype, **overrides, "num_classes": 0}
  backbone = kd_jax.create_model(config.student.name, **fields)
  own = {"num_classes": len(train.box_names), "dtype": config.dtype}
  return detector.build(backbone, {**own, **config.detector.to_dict()})


def _judge(
  config: ConfigDict,
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
      batch_size=config.eval.batch_size,
      limit=config.eval.limit or None,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_skip=skips.report(source),
    )

  return Judge(
    student,
    mesh,
    batches,
    config.eval.rules,
    config.eval.figure,
    config.eval.limit,
  )


def _precise(
  config: ConfigDict, student: Detector, method: Method
) -> Callable[[Variables, Inputs], Variables] | None:
  """Measures batch statistics anew before they are judged, where asked for."""
  if student.norm != "precise":
    return None
  checks.counts({"eval.precise_batches": config.eval.precise_batches})
  measure, mesh = Precise(student, method.phases()[0]), mesh_lib.make_mesh()

  def refine(variables: Variables, inputs: Inputs) -> Variables:
    with inputs.batches() as stream:
      some = itertools.islice(stream, config.eval.precise_batches)
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
