"""What a run measures on the way, as `config.eval` asks for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax.build import images
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource, Method
from kd_jax.models.backbone import Backbone
from kd_jax.report.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.evaluate import Evaluator
from kd_jax.train.inputs import Inputs
from kd_jax.train.teaching import Teaching


def evaluator(
  config: ConfigDict,
  student: Backbone,
  teaching: Teaching,
  method: Method,
  inputs: Inputs,
  mesh: jax.sharding.Mesh,
  skips: SkipLog,
  *,
  judged: bool = False,
) -> Evaluator:
  """The evaluator of a run.

  Args:
    config: of the run.
    student: the network.
    teaching: the teacher.
    method: whose metrics are taken.
    inputs: training images; their views are used for all sets.
    mesh: the devices.
    skips: where images that cannot be read are listed.
    judged: whether evaluations choose weights; then the method's metrics are
      of images that no eval reads: config.eval.judge, or the training data.

  Raises:
    ValueError: evals without two sets of labelled images to compare.
  """
  wanted = config.eval
  mesh_lib.check_batch(wanted.batch_size, mesh, field="eval.batch_size")
  train, test = _sets(
    tuple(wanted.evals), wanted.train.to_dict(), wanted.test.to_dict(), inputs
  )
  judge = test
  if judged:
    judge = _named(wanted.judge.to_dict()) or inputs.source

  def reader(source: DataSource) -> functools.partial[pipeline.Batches]:
    return functools.partial(
      pipeline.eval_batches,
      source,
      inputs.views,
      batch_size=wanted.batch_size,
      limit=wanted.limit or None,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_skip=skips.report(source),
    )

  return Evaluator(
    student=student,
    source=teaching.source,
    method=method,
    mesh=mesh,
    train=reader(train),
    test=reader(test),
    judge=reader(judge),
    online=teaching.bank is None,
    evals=tuple(wanted.evals),
    tap=wanted.tap,
  )


def _sets(
  evals: tuple[str, ...],
  train: Mapping[str, Any],
  test: Mapping[str, Any],
  inputs: Inputs,
) -> tuple[DataSource, DataSource]:
  """The two sets that evals compare; the training images if there are none.

  Raises:
    ValueError: one of them is not named, or has no labels.
  """
  if not evals:
    return inputs.source, inputs.source
  names = (train["name"], test["name"])
  if not all(names):
    raise ValueError(
      f"the evals {evals} compare two labelled sets; config.eval.train.name "
      f"and test.name are {names}. Name both, or switch them off with "
      "--config.eval.evals=()"
    )
  found = images.source(train), images.source(test)
  for field, each in zip(("train", "test"), found, strict=True):
    if not each.num_classes:
      raise ValueError(
        f"the evals {evals} need labels, and config.eval.{field} has none. "
        "Use labelled data, or switch them off with --config.eval.evals=()"
      )
  return found


def _named(fields: Mapping[str, Any]) -> DataSource | None:
  """The source, if its fields name one."""
  return images.source(fields) if fields["name"] else None
