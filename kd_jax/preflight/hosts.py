"""What the machines of a slice must read, against what this one can."""

from __future__ import annotations

import dataclasses
import functools
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from kd_jax.data.formats import shipped
from kd_jax.data.views import Views
from kd_jax.interfaces import DataSource
from kd_jax.types import Record

_SECONDS = 2.0
_SIZE = (500, 375)  # of ImageNet's photographs, on average
_MADE = "generated JPEG of {} x {} pixels, {:.0f} kB"


@dataclasses.dataclass(frozen=True)
class Reading:
  """What one core of this machine makes.

  Attributes:
    images_per_core: decoded and cut into views, per second of processor time.
    bytes_per_image: as stored; 0 if images are made, not read.
    what: was measured on.
  """

  images_per_core: float
  bytes_per_image: float
  what: str


def measure(source: DataSource, views: Views) -> Reading:
  """Decodes for two seconds: the run's own images if they are here.

  Args:
    source: of the run; one of unknown or no length is taken to be absent.
    views: how its images are prepared.
  """
  what = "the run's own images"
  try:
    records = [source[i] for i in range(min(len(source), 64))]
  except ValueError:
    records = []
  if not records:
    record = _photograph()
    records = [record]
    what = _MADE.format(*_SIZE, len(record["image"]) / 1000)
  stored = [r["image"] for r in records if isinstance(r["image"], bytes)]
  mean = sum(map(len, stored)) / len(stored) if stored else 0.0
  return Reading(_rate(records, views), mean, what)


def _rate(records: list[Record], views: Views) -> float:
  """Images per second of processor time, of all threads."""
  views.train(records[0], _draw)  # imports and caches
  count, start, begun = 0, time.process_time(), time.monotonic()
  while time.monotonic() - begun < _SECONDS:
    views.train(records[count % len(records)], _draw)
    count += 1
  return count / max(time.process_time() - start, 1e-9)


def _draw(crop: int) -> np.random.Generator:
  return np.random.default_rng(crop)


@functools.cache
def _photograph() -> Record:
  """A real photograph that scikit-learn ships, as a JPEG."""
  image = Image.fromarray(shipped.photograph("china")).resize(_SIZE)
  file = io.BytesIO()
  image.save(file, format="JPEG", quality=90)
  return {"image": file.getvalue(), "label": -1, "id": 0}


Measure = Callable[[DataSource, Views], Reading]
"""As `measure`."""
