"""What a run's report shows of its networks, drawn when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kd_jax.report.pictures import (
  attention,
  embedding,
  look,
  neighbours,
  patch_colours,
)
from kd_jax.report.pictures import sheet as sheet_lib
from kd_jax.train.experiment import Experiment
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Variables


def keep(experiment: Experiment, variables: Variables, where: Path) -> None:
  """Shows images to student and teacher, and draws what they see.

  Args:
    experiment: with its images; without a count of pictures nothing is drawn.
    variables: of the student.
    where: workdir.

  Raises:
    ValueError: an image cannot be decoded, or the disk is full.
  """
  if not experiment.pictures.count:
    return
  for name, picture in drawn(_looked(experiment, variables)):
    sheet_lib.keep(where, name, *picture)


def drawn(looked: look.Looked) -> Iterator[tuple[str, sheet_lib.Picture]]:
  """(name, picture or why there is none) of all that is drawn."""
  yield "neighbours", neighbours.draw(looked)
  yield "patch_colours", patch_colours.draw(looked)
  yield "attention", attention.draw(looked)
  for name in (*looked.seen, *looked.absent):
    yield f"map_of_{name}", embedding.draw(looked, name)


def _looked(experiment: Experiment, variables: Variables) -> look.Looked:
  shown, teaching = experiment.pictures, experiment.teaching
  networks = {
    "student": look.of_network(experiment.student, variables, "pooled")
  }
  taps, absent = experiment.specs[1], {}
  for name, each in teaching.each.items() if taps else ():
    named = {"feature", f"{name}/feature"}
    absent[name] = _absent(each, has_feature=bool(named & set(taps)))
  shown_by = {
    name: look.of_teacher(each.source, each.variables)
    for name, each in teaching.each.items()
    if absent.get(name) == ""
  }
  return look.collect(
    shown.queries,
    shown.gallery,
    experiment.inputs.views,
    {**shown_by, **networks},
    count=shown.count,
    absent={name: reason for name, reason in absent.items() if reason},
  )


def _absent(teaching: Teaching, *, has_feature: bool) -> str:
  """Why the teacher is not asked; '' if it is."""
  if teaching.bank is not None:
    return "which is stored in a bank and does not run"
  if teaching.spread:
    return "which no device has all of"
  return "" if has_feature else "which yields no feature"
