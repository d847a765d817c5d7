"""Files that scikit-learn ships, without importing it, which takes seconds."""

from __future__ import annotations

import functools
import importlib.util
import pathlib

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

PHOTOGRAPHS = ("china", "flower")
"""A pavilion and a flower."""


def digits() -> tuple[Float[np.ndarray, "n 64"], Int[np.ndarray, " n"]]:
  """Handwritten digits: rows of 8 x 8 pixels from 0 to 16, and labels.

  Raises:
    ValueError: scikit-learn has no such file.
  """
  rows = np.loadtxt(_file("data/digits.csv.gz"), delimiter=",")
  return rows[:, :-1], rows[:, -1].astype(np.int64)


def photograph(name: str) -> UInt8[np.ndarray, "427 640 3"]:
  """One of `PHOTOGRAPHS`.

  Raises:
    ValueError: scikit-learn has no such file.
  """
  with Image.open(_file(f"images/{name}.jpg")) as image:
    return np.asarray(image)


@functools.cache
def _file(name: str) -> pathlib.Path:
  spec = importlib.util.find_spec("sklearn")
  places = spec.submodule_search_locations if spec else None
  path = pathlib.Path(*(places or [""])[:1], "datasets", name)
  if not path.exists():
    raise ValueError(
      f"scikit-learn should ship {name}, and {path} is not there; install the "
      "version that requirements.txt names"
    )
  return path
