"""What a method may ask about the networks before its phases are set."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from kd_jax.models import dependence
from kd_jax.models.backbone import variable_shapes
from kd_jax.types import STAGES, Network, Networks, Specs


def networks(
  student: Network,
  teacher: Network | None,
  specs: tuple[Specs, Specs],
  image_size: int,
) -> Networks:
  """The facts about a pair; see `Networks`.

  Args:
    student: the network that learns.
    teacher: the network that teaches, None if its taps are stored.
    specs: taps of both.
    image_size: height and width of the images.
  """
  return Networks(
    student=specs[0],
    teacher=specs[1],
    flops=lambda tap: flops(student, tap, image_size),
    groups=groups(student, tuple(specs[0]), image_size),
    same_family=type(student) is type(teacher),
  )


def flops(model: Network, tap: str, image_size: int) -> float:
  """Floating point operations of one image's forward pass up to `tap`."""
  run = functools.partial(_run, model, (tap,))
  lowered = jax.jit(run).lower(*_shapes(model, image_size))
  return float((lowered.cost_analysis() or {}).get("flops", np.nan))


def groups(
  model: Network, taps: tuple[str, ...], image_size: int
) -> dict[str, frozenset[str]]:
  """{tap: top-level groups of the parameters that it is computed from}."""
  found = dependence.parameters(model, taps, image_size)
  return {
    tap: frozenset(path.split("/")[0] for path in paths)
    for tap, paths in found.items()
  }


def _run(
  model: Network, taps: tuple[str, ...], variables: Any, image: Any
) -> list[Any]:
  end = taps[-1] if len(taps) == 1 and taps[0] in STAGES else "head"
  found = model.apply(variables, image, train=False, end=end)
  return [found[tap] for tap in taps]


def _shapes(model: Network, image_size: int) -> tuple[Any, Any]:
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
  return variable_shapes(model, image_size), image
