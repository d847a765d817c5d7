"""What a run's report shows of its networks, drawn when it has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from kd_jax.data.views import Views
from kd_jax.methods import sizes as sizes_lib
from kd_jax.report.pictures import (
  attention,
  embedding,
  look,
  neighbours,
  patch_colours,
  sizes,
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
  networks, absent = _networks(experiment, variables)
  for name, picture in drawn(_looked(experiment, networks, absent)):
    sheet_lib.keep(where, name, *picture)
  views = _views(experiment)
  if len(views) > 1:
    shown = experiment.pictures
    seen = look.at_sizes(shown.queries, views, networks, shown.count)
    sheet_lib.keep(where, "sizes", *sizes.draw(*seen))


def drawn(looked: look.Looked) -> Iterator[tuple[str, sheet_lib.Picture]]:
  """(name, picture or why there is none) of all that is drawn."""
  yield "neighbours", neighbours.draw(looked)
  yield "patch_colours", patch_colours.draw(looked)
  yield "attention", attention.draw(looked)
  for name in (*looked.seen, *looked.absent):
    yield f"map_of_{name}", embedding.draw(looked, name)


def _views(experiment: Experiment) -> list[Views]:
  """The views of every size that phases have, ascending; one is none."""
  usual = experiment.inputs.views
  stretches = experiment.stretches
  sides = sizes_lib.of(stretch.phase for stretch in stretches)
  return [dataclasses.replace(usual, image_size=side) for side in sides]


def _networks(
  experiment: Experiment, variables: Variables
) -> tuple[dict[str, look.Look], dict[str, str]]:
  """How each looks, and why others do not."""
  teaching = experiment.teaching
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
  absent = {name: reason for name, reason in absent.items() if reason}
  return {**shown_by, **networks}, absent


def _looked(
  experiment: Experiment,
  networks: Mapping[str, look.Look],
  absent: Mapping[str, str],
) -> look.Looked:
  shown = experiment.pictures
  return look.collect(
    shown.queries,
    shown.gallery,
    experiment.inputs.views,
    networks,
    count=shown.count,
    absent=absent,
  )


def _absent(teaching: Teaching, *, has_feature: bool) -> str:
  """Why the teacher is not asked; '' if it is."""
  if teaching.bank is not None:
    return "which is stored in a bank and does not run"
  if teaching.spread:
    return "which no device has all of"
  return "" if has_feature else "which yields no feature"
