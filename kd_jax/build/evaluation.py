"""What a run measures on the way, as `config.eval` asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.build import images
from kd_jax.data import classes, pipeline
from kd_jax.interfaces import DataSource, Method
from kd_jax.models.backbone import Backbone
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.evaluate import Evaluator
from kd_jax.train.experiment import Pictures
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.teaching import Teaching


@dataclasses.dataclass(frozen=True)
class Sets:
  """What `config.eval` reads.

  Attributes:
    train: labelled images that vote; the training data without evals.
    test: images that are classified; likewise.
    judge: images of the method's metrics.
    labels: whether the labels of `judge` are the classes that the student's
      classifier learns. Otherwise no metric may read them.
  """

  train: DataSource
  test: DataSource
  judge: DataSource
  labels: bool


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
      `open_sets` refuses.
  """
  wanted = config.eval
  sets = open_sets(
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


def open_sets(
  fields: Mapping[str, Any], trained: DataSource, outputs: int, *, judged: bool
) -> Sets:
  """All sets, checked.

  Args:
    fields: `config.eval`.
    trained: the training data.
    outputs: of the student's classifier.
    judged: whether evaluations choose weights; then the method's metrics are
      of images that no eval reads: `judge`, or the training data. Otherwise
      they are of `judge` if it is named, or of `test`.

  Raises:
    ValueError: evals without two sets of labelled images to compare, or of
      the student's classifier on labels of other classes than it learns.
  """
  train, test = _compared(fields, trained)
  judge = trained if judged else test
  if fields["judge"]["name"]:
    judge = images.source(fields["judge"])
  own = set(resolve.names("evals", "OWN_CLASSES")) & set(fields["evals"])
  if own and not classes.comparable(trained, test, outputs):
    raise ValueError(
      f"the evals {sorted(own)} compare the student's classifier with labels, "
      f"and config.eval.test has other classes ({_few(test)}) than those it "
      f"learns ({_few(trained)}). Name images of these classes, or choose "
      "evals that do not read the classifier, such as knn."
    )
  labels = classes.comparable(trained, judge, outputs)
  return Sets(train, test, judge, labels)


def _compared(
  fields: Mapping[str, Any], trained: DataSource
) -> tuple[DataSource, DataSource]:
  """(train, test) of `Sets`."""
  evals, wanted = fields["evals"], (fields["train"], fields["test"])
  if not evals:
    return trained, trained
  names = tuple(part["name"] for part in wanted)
  if not all(names):
    raise ValueError(
      f"the evals {evals} compare two labelled sets; config.eval.train.name "
      f"and test.name are {names}. Name both, or switch them off with "
      "--config.eval.evals=()"
    )
  train, test = map(images.source, wanted)
  for field, found in {"train": train, "test": test}.items():
    if not found.num_classes:
      raise ValueError(
        f"the evals {evals} need labels, and config.eval.{field} has none. "
        "Use labelled data, or switch them off with --config.eval.evals=()"
      )
  return train, test


def _few(source: DataSource) -> str:
  """Number and first names of the classes."""
  names = source.class_names
  dots = ", ..." if len(names) > 3 else ""
  return f"{len(names)}: {', '.join(names[:3])}{dots}" if names else "unnamed"
