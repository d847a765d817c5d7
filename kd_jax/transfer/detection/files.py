"""A detector on disk, as `transfer.files` lays networks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax.transfer import files
from kd_jax.transfer.detection import detector
from kd_jax.transfer.detection.detector import Detector
from kd_jax.types import Variables

_INNER = ("backbone", "form")


def save(
  model: Detector,
  variables: Variables,
  directory: Path,
  *,
  name: str,
  classes: Sequence[str],
  canvas: tuple[int, int],
) -> None:
  """Writes a detector to a folder.

  Args:
    model: the network.
    variables: its parameters and statistics, on the host.
    directory: is created if necessary.
    name: architecture of the backbone.
    classes: names of the classes of the boxes.
    canvas: height and width of landscape images in evaluation, pixels.

  Raises:
    ValueError: the disk is full.
  """
  about = {
    "student": name,
    "classes": list(classes),
    "detector": _fields(model),
    "canvas": list(canvas),
  }
  files.write(model.backbone, variables, directory, about)


def load(
  directory: str | Path,
) -> tuple[Detector, Variables, Mapping[str, Any]]:
  """The detector that `save` wrote, its variables, and what is known of it.

  Returns:
    (network, variables, {'classes': names, 'canvas': [height, width], ...}).

  Raises:
    ValueError: there is none, or a file is damaged.
  """
  about, backbone, variables = files.read(
    directory, ("detector", "canvas"), task="detect", kind="detector"
  )
  return detector.build(backbone, about["detector"]), variables, about


def _fields(model: Detector) -> dict[str, Any]:
  """Name and fields, as `detector.build` takes them."""
  form = type(model.form).__module__.rpartition(".")[2]
  own = files.fields_of(model, *_INNER)
  return {"name": form, **files.fields_of(model.form), **own}
