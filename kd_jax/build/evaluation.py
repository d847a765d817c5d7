"""What a run measures on the way, as `config.eval` asks for."""

from __future__ import annotations

import functools

import jax
from ml_collections import ConfigDict

from kd_jax.build import eval_sets
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource, Method
from kd_jax.models.backbone import Backbone
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.evaluate import Evaluator
from kd_jax.train.experiment import Pictures
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.teaching import Teaching


def evaluator(
  config: ConfigDict,
  student: Backbone,
  teaching: Teaching,
  method: Method,
  inputs: Inputs,
  mesh: jax.sharding.Mesh,
  skips: SkipLog,
  *,
  judged: bool,
) -> tuple[Evaluator, Pictures]:
  """What measures a run, and the images that its report shows.

  Args:
    config: of the run.
    student: the network.
    teaching: the teacher.
    method: whose metrics are taken.
    inputs: training images; their views are used for all sets.
    mesh: the devices.
    skips: where images that cannot be read are listed.
    judged: whether evaluations choose weights.

  Raises:
    ValueError: a batch size that the devices cannot share, or what
      `eval_sets.open_sets` refuses.
  """
  wanted = config.eval
  sets = eval_sets.open_sets(
    wanted.to_dict(), inputs.source, student.num_classes, judged=judged
  )
  mesh_lib.check_batch(wanted.batch_size, mesh, field="eval.batch_size")

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

  evaluate = Evaluator(
    student=student,
    source=teaching.source,
    method=method,
    mesh=mesh,
    train=reader(sets.train),
    test=reader(sets.test),
    judge=reader(sets.judge),
    labels=sets.labels,
    online=teaching.bank is None,
    evals=tuple(wanted.evals),
    tap=wanted.tap,
  )
  return evaluate, Pictures(wanted.pictures, sets.test, sets.train)
