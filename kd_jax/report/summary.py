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
from flax import linen as nn
from ml_collections import ConfigDict

from kd_jax.data.preprocess import Preprocess
from kd_jax.models.backbone import variable_shapes
from kd_jax.report import memory, metrics
from kd_jax.types import Specs


def about(config: ConfigDict, parts: Any, where: Path) -> dict[str, Any]:
  """{label: value} for people, the report and the tests.

  Beside the networks' forward passes, one train step is traced for its memory;
  nothing is compiled.
  """
  size = config.preprocess.image_size
  devices = jax.devices()
  found = {
    "workdir": str(where),
    "task": f"{config.method.name}: {_terms(config)}",
    "devices": f"{len(devices)} x {devices[0].device_kind}",
    "processes": jax.process_count(),
    "global_batch": config.batch_size,
    "microbatches": config.accum_steps,
    "images": len(parts.data),
    "image_size": size,
    "evaluation_view": _view(parts.views),
    "interpolation": parts.views.interpolation,
    "crop_pct": parts.views.crop_pct,
    "crop_mode": parts.views.crop_mode,
    "steps": config.steps,
    "epochs": round(
      config.steps
      * config.batch_size
      / parts.views.num_crops
      / len(parts.data),
      2,
    ),
    "student": config.student.name,
    "student_width": parts.specs[0]["feature"].shape[-1],
    **_size("student", parts.student, size),
  }
  needed = memory.line(memory.estimate(config, parts))
  return found | _teacher(config, parts) | {"memory_gb_per_device": needed}


def _teacher(config: ConfigDict, parts: Any) -> dict[str, Any]:
  """The lines about the teacher; none without one."""
  teacher = getattr(parts.taught.source, "model", None)
  if teacher is None:
    return {}
  found = {
    "teacher": config.teacher.name,
    "teacher_weights": config.teacher.weights,
    "teacher_width": parts.specs[1]["feature"].shape[-1],
  }
  # A teacher may run outside of JAX.
  if not isinstance(teacher, nn.Module):
    return found
  return found | _size("teacher", teacher, config.preprocess.image_size)


def _size(side: str, model: nn.Module, image_size: int) -> dict[str, Any]:
  """Lines about parameters and operations of a network."""
  params = variable_shapes(model, image_size)["params"]
  return {
    f"{side}_parameters": parameter_overview.count_parameters(params),
    f"{side}_gflops_per_image": gflops(model, image_size),
  }


def show(about: Mapping[str, Any], specs: tuple[Specs, Specs]) -> None:
  """Prints the summary and the table of taps."""
  named = {"student": specs[0], "teacher": specs[1]}
  table = metrics.tap_table({k: v for k, v in named.items() if v})
  labels = {k.replace("_", " "): v for k, v in about.items()}
  say(f"{metrics.summary(labels)}\n\n{table}\n")


def say(text: str) -> None:
  """Prints on the first process only; standard output is for results."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)


@functools.lru_cache(maxsize=64)
def gflops(model: nn.Module, image_size: int) -> float:
  """1e9 floating point operations of one forward pass of one image."""
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
  lowered = jax.jit(
    lambda v, x: model.apply(v, x, train=False)["logits"]
  ).lower(variable_shapes(model, image_size), image)
  cost = lowered.cost_analysis() or {}
  return round(float(cost.get("flops", np.nan)) / 1e9, 4)


def _view(views: Preprocess) -> str:
  short = int(views.image_size / views.crop_pct)
  squashed = ", squashed" if views.crop_mode == "squash" else ""
  return f"{views.interpolation}, {short} -> {views.image_size}{squashed}"


def _terms(config: ConfigDict) -> str:
  weights = {k: v for k, v in config.losses.items() if v}
  return " + ".join(f"{v:g} {k}" for k, v in weights.items())
