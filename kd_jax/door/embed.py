"""Features of every image of a folder, by a student or any other network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pyarrow import parquet

from kd_jax import convert, disk, models, processes
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources.folder import Source
from kd_jax.door import arguments, photos, teachers
from kd_jax.evals import features
from kd_jax.models.backbone import Backbone
from kd_jax.report.run import summary
from kd_jax.train.views import as_unit
from kd_jax.types import Taps

_FORMATS = (".npz", ".parquet")


class Embedded(NamedTuple):
  """What `embed` finds.

  Attributes:
    names: path of every image, relative to the folder, with slashes.
    features: one row per image, before a classifier.
  """

  names: list[str]
  features: Float[np.ndarray, "n d"]


def embed(
  images: str | os.PathLike[str],
  model: str | os.PathLike[str],
  out: str | os.PathLike[str] = "",
  *,
  weights: str = "",
  batch_size: int = 32,
) -> Embedded:
  """The pooled features of every image below a folder, in the order of paths.

  Images are resized and cropped as for the evaluation of the network.

  Args:
    images: a folder of images.
    model: the folder of a run, a folder with model.safetensors and config.json,
      or a name as `distill` takes for a teacher.
    out: a .npz file with the arrays 'names' and 'features', or a .parquet file
      with these columns; '' writes none.
    weights: of a name; as `teacher_weights` of `distill`.
    batch_size: images at a time.

  Raises:
    ValueError: no images, one of them is damaged, no such model, or the file
      cannot be written.
  """
  batch_size = arguments.count("batch_size", batch_size)
  place = arguments.text("out", out)
  target = arguments.file("out", place, _FORMATS) if place else None
  place = photos.opened(arguments.text("images", images)).dir
  source = Source(place, labels=False)
  names = list(source.ids())
  if target is not None and target.suffix == ".parquet":
    _check_text(names)
  name = arguments.text("model", model)
  network, variables, view = load(name, arguments.text("weights", weights))

  @jax.jit
  def run(image: jax.Array) -> Taps:
    return network.apply(variables, as_unit(image), train=False)

  batches = pipeline.eval_batches(source, view, batch_size=batch_size)
  with batches:
    found = features.extract(run, batches, "pooled").feature
  result = Embedded(names, found)
  if target is not None:
    _write(target, result)
    summary.say(f"{len(found)} images x {found.shape[1]} features -> {target}")
  return result


def _check_text(names: list[str]) -> None:
  """Raises ValueError for a file whose name is no text."""
  for name in names:
    try:
      name.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"the name of the file {name!r} is not UTF-8, which Parquet asks for; "
        "rename it, or write a .npz file"
      ) from error


def load(
  place: str, weights: str = ""
) -> tuple[Backbone, Mapping[str, Any], Preprocess]:
  """A network without its classifier, and how its images are prepared.

  Args:
    place: see `embed`.
    weights: likewise.

  Raises:
    ValueError: there is no such network, or no device to run it on.
  """
  processes.check_devices()
  run = Path(place).expanduser()
  summary_file, known = run / "summary.json", is_run(place)
  if known and not (run / "student").is_dir():
    raise ValueError(
      f"the run {place} has no student yet; it is there when the run is "
      "finished. The same 'distill' command goes on with it"
    )
  chosen = teachers.choose(place, weights, teachers.Words("model", "weights"))
  if chosen.source != "online":
    raise ValueError(
      f"{place} is a network of the source {chosen.source!r}; this command "
      "runs those of 'kd-jax models' with their weights"
    )
  network, variables = convert.load_pretrained(
    chosen.name, chosen.weights, num_classes=0
  )
  seen = _read(summary_file) if known else {}
  return network, variables, _view(network, seen)


def is_run(place: str) -> bool:
  """Whether this is the folder of a run, and no name of a network."""
  known = place in teachers.ALIASES or models.exists(place)
  return not known and (Path(place).expanduser() / "summary.json").is_file()


def _read(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} cannot be read ({error})") from error


def _view(network: Backbone, seen: Mapping[str, Any]) -> Preprocess:
  """Of the run that trained it, else what the checkpoint says."""
  return Preprocess(
    image_size=seen.get("image_size", network.input_size[-1]),
    interpolation=seen.get("interpolation", network.interpolation),
    crop_pct=seen.get("crop_pct", network.crop_pct),
    crop_mode=seen.get("crop_mode", network.crop_mode),
  )


def _write(path: Path, found: Embedded) -> None:
  """Writes a file that is whole or not there."""
  buffer = pa.BufferOutputStream()
  if path.suffix == ".npz":
    np.savez(buffer, names=np.array(found.names), features=found.features)
  else:
    width = found.features.shape[1]
    rows = pa.FixedSizeListArray.from_arrays(
      pa.array(found.features.ravel()), width
    )
    columns = {"names": pa.array(found.names), "features": rows}
    parquet.write_table(pa.table(columns), buffer)
  try:
    disk.write(path, buffer.getvalue().to_pybytes())
  except OSError as error:
    raise ValueError(
      f"{path} cannot be written ({error.strerror}); choose another out"
    ) from error
