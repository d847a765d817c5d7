"""Statistics of the teacher's taps, for the losses that read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kd_jax.align import basis as basis_lib
from kd_jax.align import maps
from kd_jax.build import bank_checks, setup
from kd_jax.report import summary
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import statistics
from kd_jax.types import Method, Specs

_MOST_ROWS = np.iinfo(np.int32).max


def fitted(config: ConfigDict, parts: Any, where: Path) -> Mapping[str, Any]:
  """What the losses read as `variables['artifact']`; fitted if not there yet.

  Args:
    config: of the run.
    parts: `pretrain.Parts`.
    where: the workdir.

  Raises:
    ValueError: see `train.artifact`.
  """
  wanted = taps(parts.method)
  if wanted:
    return _of_taps(config, parts, wanted, where)
  tap = parts.method.artifact_tap
  if tap is None:
    return {}
  width = parts.specs[0][tap].shape[-1]
  if "basis" in parts.taught.variables:
    return bank_checks.artifact(parts.taught.variables, width)
  found = setup.fit_basis(
    config, parts.taught, tap, parts.data, where, parts.mesh, parts.skips
  )
  share = basis_lib.explained(found, width)
  summary.say(f"{width} directions explain {share:.1%} of the {tap}")
  return found.artifact(width)


def placeholder(
  method: Method, specs: tuple[Specs, Specs]
) -> Mapping[str, Any]:
  """The same shapes with nothing in them, for timing."""
  wanted, tap = taps(method), method.artifact_tap
  if wanted:
    sizes = [specs[1][tap].shape[-1] for tap in wanted]
    return {
      tap: {
        **basis_lib.placeholder(dim=size, width=size),
        "rows": np.float32(2),
      }
      for tap, size in zip(wanted, sizes, strict=True)
    }
  if tap is None:
    return {}
  student, teacher = (side[tap].shape[-1] for side in specs)
  return basis_lib.placeholder(dim=teacher, width=student)


def taps(method: Method) -> tuple[str, ...]:
  """The teacher's taps of which a method reads statistics, if it is several."""
  return getattr(method, "artifact_taps", ())


def path_of(config: ConfigDict, workdir: Path, tap: str) -> Path:
  """Where the statistics of one of several taps are: artifact_stage2.npz."""
  path = setup.artifact_path(config, workdir)
  return path.with_name(f"{path.stem}_{tap}{path.suffix}")


def _of_taps(
  config: ConfigDict, parts: Any, wanted: tuple[str, ...], where: Path
) -> dict[str, Any]:
  """{tap: its artifact, all directions, and 'rows'}."""
  taught, views = parts.taught, setup.preprocess(config, parts.taught.viewer)
  _check_rows(config, parts, wanted)

  def fit(missing: tuple[str, ...]) -> dict[str, basis_lib.ScatterState]:
    teacher = mesh_lib.place(taught.variables, parts.mesh)
    frozen = {"teacher": teacher, "artifact": {}}
    stream = setup.fit_batches(config, taught, parts.data, views, parts.skips)
    with stream as batches:
      return statistics.scatter(
        taught.source,
        frozen,
        missing,
        batches,
        parts.mesh,
        cut=setup.cut(views),
      )

  paths = {tap: path_of(config, where, tap) for tap in wanted}
  prints = {
    tap: setup.fit_identity(config, taught, tap, parts.data, views)
    for tap in wanted
  }
  found = statistics.load_or_fit_all(paths, prints, fit)
  return {
    tap: {**basis.artifact(basis.mean.size), "rows": np.float32(basis.count)}
    for tap, basis in found.items()
  }


def _check_rows(config: ConfigDict, parts: Any, wanted: Any) -> None:
  """Every position of every image counts.

  Raises:
    ValueError: more rows than can be counted.
  """
  examples = min(config.fit.examples or len(parts.data), len(parts.data))
  for tap in wanted:
    positions = math.prod(maps.grid_of(parts.specs[1][tap].shape))
    most = _MOST_ROWS // (positions * parts.views.num_crops)
    if examples > most:
      raise ValueError(
        f"the teacher's map {tap!r} has {positions} positions, which for "
        f"{examples} images is more rows than can be counted; set "
        f"--config.fit.examples to {most} or less"
      )
