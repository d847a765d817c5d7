"""What can be refused as soon as config, data and networks are known."""

from __future__ import annotations

from ml_collections import ConfigDict

from kd_jax.types import DataSource, Method, Specs


def counts(config: ConfigDict) -> None:
  """Whether the numbers of a config that count something can do so.

  Raises:
    ValueError: a negative one.
  """
  counts = {
    "seed": config.seed,
    "log_every": config.log_every,
    "eval.every": config.eval.every,
    "eval.limit": config.eval.limit,
    "eval.pictures": config.eval.pictures,
    "fit.examples": config.fit.examples,
    "checkpoint.every": config.checkpoint.every,
    "input.workers": config.input.workers,
    "input.threads": config.input.threads,
    "input.prefetch": config.input.prefetch,
  }
  for field, count in counts.items():
    if count < 0:
      raise ValueError(f"config.{field} is {count}; it must be at least 0")


def tap(config: ConfigDict, student: Specs) -> None:
  """Whether the student offers what the evals read.

  Raises:
    ValueError: no such tap, or it is no vector per image.
  """
  vectors = [name for name, spec in student.items() if len(spec.shape) == 2]
  if config.eval.evals and config.eval.tap not in vectors:
    raise ValueError(
      f"config.eval.tap is {config.eval.tap!r}; evals read one vector per "
      f"image, and this student has {vectors}"
    )


def labels(method: Method, data: DataSource, student: Specs) -> None:
  """Whether a method that reads labels gets them.

  Raises:
    ValueError: the data has none, or other classes than the student.
  """
  if not getattr(method, "reads_labels", "ce" in method.terms):
    return
  ce = "ce" in method.terms
  what = "the loss term ce" if ce else "the method"
  classes = student["logits"].shape[-1]
  if not data.num_classes or classes != data.num_classes:
    raise ValueError(
      f"{what} needs labels; the data has {data.num_classes} "
      f"classes and the student {classes} outputs. Use labelled data and set "
      f"--config.student.overrides.num_classes={data.num_classes}, or give "
      "ce the weight 0."
    )
