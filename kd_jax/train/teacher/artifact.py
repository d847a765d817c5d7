"""What losses read as `variables['artifact']`: statistics of teacher taps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from kd_jax.align import basis as basis_lib
from kd_jax.align import maps
from kd_jax.data.bank import compatibility
from kd_jax.interfaces import Method
from kd_jax.train import views
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher import statistics
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Artifact, Specs

_MOST_ROWS = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Fit:
  """How statistics of the teacher are fitted, and where they are kept.

  Attributes:
    teaching: the teacher.
    inputs: the images.
    mesh: the devices.
    path: file of the basis; those of several taps lie beside it.
    augment: on training views; False: on evaluation views.
    examples: images; 0 takes all.
    passes: over them, each in other training views.
  """

  teaching: Teaching
  inputs: Inputs
  mesh: jax.sharding.Mesh
  path: Path
  augment: bool
  examples: int
  passes: int = 1

  def basis(self, tap: str) -> basis_lib.Basis:
    """The basis of one tap, from its file or from one pass over the images.

    Raises:
      ValueError: see `statistics.load_or_fit`.
    """

    def fit(fingerprint: str) -> basis_lib.Basis:
      states = self._scatter((tap,))
      return basis_lib.finish(states[tap], fingerprint)

    return statistics.load_or_fit(self.path, self._identity(tap), fit)

  def bases(self, taps: tuple[str, ...]) -> dict[str, basis_lib.Basis]:
    """The bases of several taps, in a file each; one pass for all of them.

    Raises:
      ValueError: see `statistics.load_or_fit_all`.
    """
    paths = {tap: self.path_of(tap) for tap in taps}
    prints = {tap: self._identity(tap) for tap in taps}
    return statistics.load_or_fit_all(paths, prints, self._scatter)

  def path_of(self, tap: str) -> Path:
    """Where the statistics of one of several taps are: artifact_stage2.npz."""
    plain = tap.replace("/", "_")
    return self.path.with_name(f"{self.path.stem}_{plain}{self.path.suffix}")

  def check_rows(self, teacher: Specs, taps: Iterable[str]) -> None:
    """Whether the rows of maps can be counted: every position is one.

    Raises:
      ValueError: there are more.
    """
    total = len(self.inputs.source)
    examples = min(self.examples or total, total) * self.passes
    for tap in taps:
      shape = teacher[tap].shape
      positions = math.prod(maps.grid_of(shape)) if len(shape) > 2 else 1
      most = _MOST_ROWS // (positions * self.inputs.views.num_crops)
      if examples > most:
        raise ValueError(
          f"the teacher's map {tap!r} has {positions} positions, which for "
          f"{examples} images is more rows than can be counted; set "
          f"--config.fit.examples to {most} or less"
        )

  def _scatter(
    self, taps: tuple[str, ...]
  ) -> dict[str, basis_lib.ScatterState]:
    """Sums over the rows of the taps, in one pass."""
    teacher = self.teaching.place(self.mesh)
    chosen = self.inputs.fit_batches(
      augment=self.augment, examples=self.examples, passes=self.passes
    )
    with chosen as batches:
      return statistics.scatter(
        self.teaching.source,
        {"teacher": teacher, "artifact": {}},
        taps,
        batches,
        self.mesh,
        cut=views.cut_of(self.inputs.views),
      )

  def _identity(self, tap: str) -> str:
    """Of everything that the statistics of a tap depend on."""
    more = (self.passes,) if self.passes > 1 else ()
    return statistics.identity(
      self.teaching.fingerprint_of(tap),
      tap.rpartition("/")[2],
      self.inputs.source.fingerprint,
      self.inputs.views.fingerprint(),
      repr((self.augment, self.examples, self.inputs.seed, *more)),
    )


def fitted(
  method: Method, specs: tuple[Specs, Specs], fit: Fit
) -> tuple[Artifact, str]:
  """The statistics that a method reads; fitted if they are not there yet.

  Args:
    method: that runs.
    specs: taps of student and teacher.
    fit: how to get them.

  Returns:
    The artifact, and a line about it; '' if there is nothing to say.

  Raises:
    ValueError: see `Fit`.
  """
  if method.artifact_taps:
    return _of_taps(method, specs, fit), ""
  tap = method.artifact_tap
  if tap is None:
    return {}, ""
  width = specs[0][tap].shape[-1]
  stored = fit.teaching.basis_of(tap)
  if stored is not None:
    return compatibility.artifact(stored, tap, width), ""
  basis = fit.basis(tap)
  share = basis_lib.explained(basis, width)
  line = f"{width} directions explain {share:.1%} of the {tap}"
  return basis.artifact(width), line


def _of_taps(
  method: Method, specs: tuple[Specs, Specs], fit: Fit
) -> dict[str, Artifact]:
  """{tap: its statistics}, from the constants of a bank where they are."""
  taps, widths = method.artifact_taps, method.artifact_widths(specs[0])
  stored = {tap: fit.teaching.basis_of(tap) for tap in taps}
  found: dict[str, Artifact] = {
    tap: compatibility.artifact(constants, tap, widths[tap])
    for tap, constants in stored.items()
    if constants is not None and tap in widths
  }
  missing = tuple(tap for tap in taps if tap not in found)
  fit.check_rows(specs[1], missing)
  for tap, basis in (fit.bases(missing) if missing else {}).items():
    found[tap] = (
      basis.artifact(widths[tap])
      if tap in widths
      else method.refined(tap, _whole(basis), specs[1])
    )
  return {tap: found[tap] for tap in taps}


def placeholder(method: Method, specs: tuple[Specs, Specs]) -> Artifact:
  """The same shapes with nothing in them, for timing."""
  if method.artifact_taps:
    sizes = {tap: specs[1][tap].shape[-1] for tap in method.artifact_taps}
    widths = method.artifact_widths(specs[0])
    found = {
      tap: basis_lib.placeholder(dim=size, width=widths.get(tap, size))
      for tap, size in sizes.items()
    }
    more = {"rows": np.float32(2)}
    return {k: x if k in widths else {**x, **more} for k, x in found.items()}
  tap = method.artifact_tap
  if tap is None:
    return {}
  student, teacher = (side[tap].shape[-1] for side in specs)
  return basis_lib.placeholder(dim=teacher, width=student)


def _whole(basis: basis_lib.Basis) -> Artifact:
  """All directions, and the number of rows that they were fitted on."""
  return {**basis.artifact(basis.mean.size), "rows": np.float32(basis.count)}
