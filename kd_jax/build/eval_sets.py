"""The images that a run is judged by, and whether its classifier may be."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.data import classes
from kd_jax.types import DataSource


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


def chosen(config: ConfigDict) -> tuple[DataSource, DataSource]:
  """(train, test) of `Sets`.

  Raises:
    ValueError: evals without two sets of labelled images to compare.
  """
  wanted = (config.eval.train, config.eval.test)
  if not config.eval.evals:
    return (_data(config.data),) * 2
  names = tuple(part.name for part in wanted)
  if not all(names):
    raise ValueError(
      f"the evals {config.eval.evals} compare two labelled sets; "
      f"config.eval.train.name and test.name are {names}. Name both, or "
      "switch them off with --config.eval.evals=()"
    )
  train, test = map(_data, wanted)
  for field, found in {"train": train, "test": test}.items():
    if not found.num_classes:
      raise ValueError(
        f"the evals {config.eval.evals} need labels, and config.eval.{field} "
        "has none. Use labelled data, or switch them off with "
        "--config.eval.evals=()"
      )
  return train, test


def open_sets(config: ConfigDict, outputs: int, *, judged: bool) -> Sets:
  """All sets, checked.

  Args:
    config: of the run.
    outputs: of the student's classifier.
    judged: whether evaluations choose weights; then the method's metrics are
      of images that no eval reads: config.eval.judge, or the training data.
      Otherwise they are of config.eval.judge if it is named, or of `test`.

  Raises:
    ValueError: as `chosen`, or an eval of the student's classifier on labels
      of other classes than it is trained on.
  """
  trained = _data(config.data)
  train, test = chosen(config)
  judge = trained if judged else test
  if config.eval.judge.name:
    judge = _data(config.eval.judge)
  own = set(resolve.names("evals", "OWN_CLASSES")) & set(config.eval.evals)
  if own and not classes.comparable(trained, test, outputs):
    raise ValueError(
      f"the evals {sorted(own)} compare the student's classifier with labels, "
      f"and config.eval.test has other classes ({_few(test)}) than those it "
      f"learns ({_few(trained)}). Name images of these classes, or choose "
      "evals that do not read the classifier, such as knn."
    )
  labels = classes.comparable(trained, judge, outputs)
  return Sets(train, test, judge, labels)


def _data(config: ConfigDict) -> DataSource:
  return resolve.build("data.sources", "Source", config.to_dict())


def _few(source: DataSource) -> str:
  """Number and first names of the classes."""
  names = source.class_names
  dots = ", ..." if len(names) > 3 else ""
  return f"{len(names)}: {', '.join(names[:3])}{dots}" if names else "unnamed"
