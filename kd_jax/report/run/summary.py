"""The start-up summary: what is about to run, in numbers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from kd_jax.buckets import spool
from kd_jax.models.backbone import variable_shapes
from kd_jax.report import tables
from kd_jax.report.run import memory
from kd_jax.train.experiment import Experiment
from kd_jax.train.phases import Stretch
from kd_jax.types import Network, Specs, Variables


def about(experiment: Experiment, where: Path) -> dict[str, Any]:
  """{label: value} for people, the report and the tests.

  Beside the networks' forward passes, one train step is traced for its memory;
  nothing is compiled.

  Args:
    experiment: that is about to run.
    where: the workdir.
  """
  names, views = experiment.names, experiment.inputs.views
  devices, images = jax.devices(), len(experiment.inputs.source)
  steps, batch_size = experiment.schedule.steps, experiment.schedule.batch_size
  return {
    "workdir": spool.address(where),
    "task": f"{names.method}: {_terms(experiment.settings.weights)}",
    "devices": f"{len(devices)} x {devices[0].device_kind}",
    "processes": jax.process_count(),
    "global_batch": batch_size,
    "microbatches": experiment.settings.accum_steps,
    "images": images,
    **views.described(),
    "steps": steps,
    "epochs": round(steps * batch_size / views.num_crops / images, 2),
    "student": names.student,
    **_width(experiment),
    **_size("student", experiment.student, views.canvas_size),
    **_teacher(experiment),
    "memory_gb_per_device": memory.line(memory.estimate(experiment)),
    **_phases(experiment.stretches),
  }


def _width(experiment: Experiment) -> dict[str, int]:
  """Of the student's features, where the network runs as far as them."""
  taps = experiment.specs[0]
  if "feature" not in taps:
    return {}
  return {"student_width": taps["feature"].shape[-1]}


def _teacher(experiment: Experiment) -> dict[str, Any]:
  """The lines about the teacher; none where none runs."""
  teaching, taps = experiment.teaching, experiment.specs[1]
  if not taps or (teaching.bank is not None and not teaching.networks):
    return {}
  found: dict[str, Any] = {
    "teacher": experiment.names.teacher,
    "teacher_weights": experiment.names.teacher_weights,
    "teacher_width": taps["feature"].shape[-1],
  }
  views = experiment.inputs.views
  for name, network in teaching.networks.items():
    side = views.other_cuts[name][0] if name in views.other_cuts else 0
    size = (side, side) if side else views.canvas_size
    found |= _size(name, network, size)
  return found


def _phases(stretches: tuple[Stretch, ...]) -> dict[str, str]:
  """How the steps are shared out, if there are several phases."""
  found = [f"{s.phase.name} {s.stop - s.start}" for s in stretches]
  return {"steps_per_phase": ", ".join(found)} if len(found) > 1 else {}


def _size(side: str, model: Network, size: tuple[int, int]) -> dict[str, Any]:
  """Lines about parameters and operations of a network."""
  params = variable_shapes(model, size[0])["params"]
  return {
    f"{side}_parameters": parameter_overview.count_parameters(params),
    f"{side}_gflops_per_image": gflops(model, *size),
  }


def show(about: Mapping[str, Any], specs: tuple[Specs, Specs]) -> None:
  """Prints the summary and the table of taps."""
  named = {"student": specs[0], "teacher": specs[1]}
  table = tables.tap_table({k: v for k, v in named.items() if v})
  labels = {k.replace("_", " "): v for k, v in about.items()}
  say(f"{tables.summary(labels)}\n\n{table}\n")


def say(text: str) -> None:
  """Prints on the first process only; standard output is for results."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)


@functools.lru_cache(maxsize=64)
def gflops(model: Network, height: int, width: int = 0) -> float:
  """1e9 floating point operations of one forward pass of one image.

  Args:
    model: its 'logits' are computed, or all taps where there are none.
    height: of the image, pixels.
    width: the same; 0 is `height`.
  """
  image = jax.ShapeDtypeStruct((1, height, width or height, 3), np.float32)

  def run(variables: Variables, x: jax.Array) -> Any:
    taps = model.apply(variables, x, train=False)
    return taps.get("logits", taps)

  lowered = jax.jit(run).lower(variable_shapes(model, height), image)
  cost = lowered.cost_analysis() or {}
  return round(float(cost.get("flops", np.nan)) / 1e9, 4)


def _terms(weights: Mapping[str, float]) -> str:
  found = {term: weight for term, weight in weights.items() if weight}
  return " + ".join(f"{weight:g} {term}" for term, weight in found.items())
