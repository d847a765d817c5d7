"""Whether the labels of two data sets mean the same classes."""

from __future__ import annotations

from kd_jax.interfaces import DataSource


def comparable(trained: DataSource, judge: DataSource, outputs: int) -> bool:
  """Whether a classifier may be compared with the labels of `judge`.

  Only with labels of the classes that it was trained on: numbers alone say
  nothing, as every data set counts its own classes from 0.

  Args:
    trained: what the classifier learns from. If it has no labels, or not
      `outputs` classes, the classifier learns the classes of its teacher, of
      which only the number is known.
    judge: whose labels it would be compared with.
    outputs: of the classifier.
  """
  if trained.num_classes != outputs:
    return judge.num_classes == outputs
  return _classes(trained) == _classes(judge)


def _classes(source: DataSource) -> tuple[int, tuple[str, ...]]:
  """Their number, and their names if they have any."""
  return source.num_classes, tuple(source.class_names)
