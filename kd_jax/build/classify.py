"""From a config to the plan of a classification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from kd_jax import resolve
from kd_jax.build import images, networks, transfer
from kd_jax.data import pipeline
from kd_jax.interfaces import DataSource
from kd_jax.methods import supervised
from kd_jax.models.backbone import Backbone
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.transfer import draws
from kd_jax.transfer.classify import Judge
from kd_jax.transfer.plan import Plan
from kd_jax.types import Variables


def plan(config: ConfigDict, where: str | Path) -> Plan[Judge]:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'classify'.
    where: the workdir; nothing is written.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  train = images.source(config.data.to_dict())
  test = images.source(config.test.to_dict(), "test")
  _check_classes(train, test)
  student, wanted = _student(config.to_dict(), train), transfer.protocol(config)
  _check_evals(wanted.evals)
  terms = tuple(name for name, weight in config.losses.items() if weight)
  views = images.preprocess(config.preprocess.to_dict())
  limit = config.eval.limit or None

  def judge(mesh: jax.sharding.Mesh, skips: SkipLog) -> Judge:
    def batches(source: DataSource) -> pipeline.Batches:
      return pipeline.eval_batches(
        source,
        views,
        batch_size=config.eval.batch_size,
        limit=limit,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_skip=skips.report(source),
      )

    return Judge(student, mesh, batches, config.eval.figure)

  task = transfer.Task(
    student=student,
    views=views,
    method=supervised.Method(terms, wanted.trains),
    judge=judge,
    initial=initial(config),
    classes=train.num_classes,
  )
  labels = np.asarray(train.all_labels())
  holdout = wanted.holdout if wanted.searches else 0.0
  parts = draws.parts(train, labels, holdout)
  return transfer.plan(config, Path(where), task, parts, test)


def initial(config: ConfigDict) -> Variables:
  """What the network starts from: weights of the backbone, or nothing."""
  return networks.initial(config.student.to_dict(), config.init_from)


def _student(config: Mapping[str, Any], train: DataSource) -> Backbone:
  """The network, with a classifier of the classes of the data."""
  overrides = networks.model_fields(config["student"]["overrides"])
  asked = overrides.setdefault("num_classes", train.num_classes)
  if asked != train.num_classes:
    raise ValueError(
      f"student.overrides.num_classes is {asked}, and the training images have "
      f"{train.num_classes} classes; leave it out, it follows the data"
    )
  return kd_jax.create_model(
    config["student"]["name"], **{"dtype": config["dtype"], **overrides}
  )


def _check_evals(names: tuple[str, ...]) -> None:
  """Whether there are such evals, and they judge features."""
  own = resolve.names("evals", "OWN_CLASSES")
  for name in names:
    resolve.symbol("evals", name, "evaluate")
    if name in own:
      raise ValueError(
        f"transfer.evals has {name!r}, which judges a classifier; here they "
        "judge features before training, as 'knn' and 'probe' do"
      )


def _check_classes(train: DataSource, test: DataSource) -> None:
  """Whether both sets have labels, of the same classes."""
  for name, found in (("data", train), ("test", test)):
    if not found.num_classes:
      raise ValueError(
        f"config.{name} has no labels; a classifier needs images in one folder "
        "per class, a CSV file of labels, or a labelled data set"
      )
  if tuple(train.class_names) != tuple(test.class_names):
    apart = sorted({*train.class_names} ^ {*test.class_names})
    raise ValueError(
      f"config.data has {train.num_classes} classes and config.test "
      f"{test.num_classes}; they must be the same, in the same order "
      f"(only in one of them: {apart[:3]})"
    )
