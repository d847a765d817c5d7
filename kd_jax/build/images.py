"""Images: where they come from, how they are prepared, in what batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.buckets import inputs as bucket_inputs
from kd_jax.buckets import store
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.interfaces import DataSource, EvaluationView
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.artifact import Fit
from kd_jax.train.teacher.teaching import Teaching


def source(fields: Mapping[str, Any], part: str = "data") -> DataSource:
  """The data source whose file is `fields['name']`.

  Args:
    fields: of it.
    part: of the config that they are; what errors advise is said of it.
  """
  try:
    return resolve.build("data.sources", "Source", fields)
  except ValueError as error:
    said = str(error)
    told = said.replace("--config.data.", f"--config.{part}.")
    if told == said:
      raise
    raise ValueError(told) from error


def preprocess(
  fields: Mapping[str, Any], teacher: EvaluationView | None = None
) -> Preprocess:
  """How images are prepared.

  Args:
    fields: `config.preprocess`.
    teacher: followed in the evaluation view where the fields leave it open.
  """
  teacher = teacher or EvaluationView()
  followed = {
    "interpolation": fields["interpolation"] or teacher.interpolation,
    "crop_pct": fields["crop_pct"] or teacher.crop_pct,
    "crop_mode": fields.get("crop_mode") or teacher.crop_mode,
  }
  return resolve.construct(Preprocess, {**fields, **followed}, "preprocess")


def inputs(config: ConfigDict, data: DataSource, teaching: Teaching) -> Inputs:
  """The training images, prepared as `config` or the teacher wants them.

  Args:
    config: of the run.
    data: where records come from.
    teaching: the teacher.
  """
  return Inputs(
    source=data,
    views=preprocess(
      config.preprocess.to_dict(), teaching.source.evaluation_view
    ),
    batch_size=config.batch_size,
    seed=config.seed,
    reading=reading(config.input.to_dict()),
    bank=teaching.bank,
  )


def reading(fields: Mapping[str, float]) -> Reading:
  """How batches are read ahead, as `config.input` says."""
  return Reading(
    num_workers=int(fields["workers"]),
    num_threads=int(fields["threads"]),
    prefetch=int(fields["prefetch"]),
    keep_gib=fields.get("keep_gib", 0.0),  # configs of older runs have none
  )


def _basis(artifact: str) -> Path | None:
  """The file that `config.fit.artifact` names, with those of several taps."""
  if not store.is_url(artifact):
    return Path(artifact) if artifact else None
  folder, _, name = artifact.rpartition("/")
  stem = name.removesuffix(".npz")
  found = [k for k in store.keys(folder) if k.startswith(stem) and "/" not in k]
  if not found:
    raise ValueError(
      f"there is no basis at {artifact}; the task fit_svd with --workdir "
      f"{folder} writes {folder}/artifact.npz"
    )
  return bucket_inputs.fetched(folder, found) / name


def fit(
  fields: Mapping[str, Any],
  teaching: Teaching,
  found: Inputs,
  mesh: jax.sharding.Mesh,
  workdir: Path,
) -> Fit:
  """How the teacher's statistics are fitted.

  Args:
    fields: `config.fit`.
    teaching: the teacher.
    found: the images.
    mesh: the devices.
    workdir: where the statistics go unless `artifact` says otherwise.

  Raises:
    ValueError: `artifact` is in a bucket, which does not have it.
  """
  return Fit(
    teaching=teaching,
    inputs=found,
    mesh=mesh,
    path=_basis(fields["artifact"]) or workdir / "artifact.npz",
    augment=fields["augment"],
    examples=fields["examples"],
    passes=fields["passes"],
  )
