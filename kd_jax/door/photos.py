"""What a folder of images holds, as far as defaults depend on it."""

from __future__ import annotations

import dataclasses
import io
import statistics
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from kd_jax.data.sources import folder

LEAST = 8  # images; fewer are a mistake
_LOOKED_AT = 64  # headers


@dataclasses.dataclass(frozen=True)
class Photos:
  """A folder of images at a glance.

  Attributes:
    dir: the folder, as an absolute path.
    count: images.
    side: median of the shorter side, pixels.
    grey: whether none has colours.
    unreadable: of those that were looked at, how many are no images.
    of: how many were looked at.
  """

  dir: str
  count: int
  side: int
  grey: bool
  unreadable: int
  of: int

  def __str__(self) -> str:
    kind = "grey" if self.grey else "colour"
    line = f"{self.count:,} {kind} images, shorter side {self.side} px (median)"
    if self.unreadable:
      line += (
        f"; {self.unreadable} of the {self.of} that were looked at cannot be "
        "read and are left out"
      )
    return line


def look(images: str) -> Photos:
  """Counts the images below a folder and reads some headers.

  Args:
    images: the folder.

  Raises:
    ValueError: no such folder, too few images, or none that can be read.
  """
  source = opened(images)
  if len(source) < LEAST:
    raise ValueError(
      f"{images} holds {len(source)} images; a student needs {LEAST} at least"
    )
  place = resolved(images)
  rows = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(int))
  found = [_header(source, int(row)) for row in rows]
  good = [each for each in found if each is not None]
  if not good:
    raise ValueError(
      f"none of the {len(rows)} images of {images} that were looked at can be "
      f"read, {source.describe(0)} for one; are they damaged?"
    )
  return Photos(
    dir=place,
    count=len(source),
    side=int(statistics.median(side for side, _ in good)),
    grey=all(grey for _, grey in good),
    unreadable=len(found) - len(good),
    of=len(found),
  )


def resolved(images: str) -> str:
  """The folder as an absolute path."""
  return str(Path(images).expanduser().resolve())


def opened(images: str, name: str = "images") -> folder.Source:
  """The images below a folder, without labels.

  Args:
    images: the folder.
    name: of the argument, for errors.

  Raises:
    ValueError: it is a URL, no folder, or one without images.
  """
  if not images:
    raise ValueError("no folder of images is named")
  if "://" in images:
    raise ValueError(
      f"{name} is {images}; this command reads folders of this machine, and "
      "a config reads buckets: docs/data.md"
    )
  place = Path(images).expanduser()
  if not place.is_dir():
    what = "is a file" if place.exists() else "does not exist"
    raise ValueError(f"{name} must be a folder, and {images} {what}")
  return folder.Source(resolved(images), labels=False, skip_corrupt=True)


def _header(source: folder.Source, row: int) -> tuple[int, bool] | None:
  """(shorter side, whether grey) of an image; None if it is none."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Pillow, about odd files
    try:
      file = source[row]["image"]
      assert isinstance(file, bytes)
      with Image.open(io.BytesIO(file)) as image:
        return min(image.size), image.mode in ("1", "L", "LA", "I;16", "I", "F")
    # Pillow's plugins raise whatever comes to them.
    except Exception:
      return None
