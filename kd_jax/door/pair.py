"""A teacher and a student, and what a method makes of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kd_jax.models.backbone import Backbone, variable_shapes
from kd_jax.types import Specs

BATCH = 512  # images, that rates are given for


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two networks, as far as defaults depend on them.

  Attributes:
    name: of the student.
    student: its taps.
    teacher: those of the teacher; None where another library runs it.
    images: how many there are to learn from.
  """

  name: str
  student: Specs
  teacher: Specs | None
  images: int


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a method wants of a run.

  Attributes:
    sections: whole sections of the config, and fields of others, by name.
    passes: over the images, that a full run takes.
    rate: of SGD, for `BATCH` images.
    spectrum: whether the teacher's directions are fitted before step 0.
  """

  sections: Mapping[str, Mapping[str, Any]]
  passes: int
  rate: float
  spectrum: bool = False


def taps(network: Backbone, size: int) -> Specs:
  """Outputs of a network for one image.

  Args:
    network: the module.
    size: side of the image, pixels.

  Raises:
    ValueError: it takes no such images.
  """
  image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  run = functools.partial(network.apply, train=False)
  return jax.eval_shape(run, variable_shapes(network), image)
