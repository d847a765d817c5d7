"""Several teachers at once: each is asked in its own way about the same crop.

The taps of the teacher NAME are called 'NAME/tap', and so are the arrays of
its bank. Vectors that all of them have are also there as one, side by side in
the order of the teachers: 'tap' without a name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kd_jax.data.bank import Bank
from kd_jax.interfaces import EvaluationView, TeacherSource, computed
from kd_jax.methods.heard import own
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import (
  Array,
  Batch,
  Network,
  Taps,
  Teacher,
  Variables,
)


@dataclasses.dataclass(frozen=True)
class Part:
  """One of several teachers.

  Attributes:
    name: of the teacher.
    source: where its taps come from.
    size: side of its own view, pixels; 0 is the student's view.
  """

  name: str
  source: TeacherSource
  size: int = 0

  def shown(self, batch: Batch) -> Batch:
    """The batch as this teacher gets it."""
    image = batch.views[self.name] if self.size else batch.image
    return batch.replace(
      image=image, teacher=own(batch.teacher, self.name), views={}
    )

  def asked(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """What this teacher says.

    Raises:
      ValueError: it does not take images of this size.
    """
    mine = {**frozen, "teacher": frozen["teacher"][self.name]}
    try:
      return self.source(mine, self.shown(batch))
    except ValueError as error:
      raise ValueError(
        f"teacher {self.name!r}: {error} Its size is "
        f"--config.teachers.{self.name}.preprocess.image_size."
      ) from error


@dataclasses.dataclass(frozen=True)
class Several(TeacherSource):
  """Asks all of them; `frozen['teacher']` is {name: variables}.

  Attributes:
    parts: the teachers.
  """

  parts: tuple[Part, ...]

  @computed
  def can_resume(self) -> bool:
    """Whether one of them can; `resumes` knows which."""
    return any(part.source.can_resume for part in self.parts)

  def resumes(self, stage: str) -> bool:
    """Whether the teacher of 'NAME/stage' runs from there."""
    name, _, begin = stage.partition("/")
    found = [part for part in self.parts if part.name == name]
    return bool(found) and found[0].source.resumes(begin)

  @property
  def can_mix(self) -> bool:
    """Whether all of them can."""
    return all(part.source.can_mix for part in self.parts)

  @property
  def evaluation_view(self) -> EvaluationView:
    """That of the first one."""
    return self.parts[0].source.evaluation_view

  def stored_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of all that are stored."""
    return _named({p.name: p.source.stored_specs(rows) for p in self.parts})

  def view_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """See `TeacherSource`."""
    return {
      part.name: jax.ShapeDtypeStruct(
        (rows, part.size, part.size, 3), np.float32
      )
      for part in self.parts
      if part.size
    }

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """The taps of all; what nobody reads, XLA does not compute."""
    found = {part.name: part.asked(frozen, batch) for part in self.parts}
    taps = _named({name: teacher.taps for name, teacher in found.items()})
    resumes = {name: teacher.resume for name, teacher in found.items()}
    return Teacher({**taps, **_joined(found)}, _resuming(resumes))


def _named(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  return {
    f"{name}/{key}": value
    for name, tree in parts.items()
    for key, value in tree.items()
  }


def _joined(found: Mapping[str, Teacher]) -> dict[str, Array]:
  """The vectors that all have, side by side."""
  sides = [teacher.taps for teacher in found.values()]
  shared = set(sides[0]).intersection(*sides)
  return {
    tap: jnp.concatenate([side[tap] for side in sides], -1)
    for tap in sorted(shared)
    if all(side[tap].ndim == 2 for side in sides)
  }


def _resuming(
  resumes: Mapping[str, Callable[..., Taps] | None],
) -> Callable[..., Taps]:
  """resume('NAME/stage', x) of the teacher of that name."""

  def resume(begin: str, x: Array, end: str = "head") -> Taps:
    name, _, stage = begin.partition("/")
    run = resumes[name]
    assert run is not None  # refused before step 0, see `resumes`
    return run(stage, x, end=end)

  return resume


@dataclasses.dataclass(frozen=True)
class Together(Teaching):
  """Several teachers that are ready to be asked.

  Attributes:
    parts: {name: teacher}.
    sizes: {name: side of its own view}; others see the student's.
    banks: what stores their taps, as one bank; None if all of them run.
  """

  parts: Mapping[str, Teaching] = dataclasses.field(default_factory=dict)
  sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  banks: Bank | None = None

  @property
  def networks(self) -> Mapping[str, Network]:
    """{teacher: network} of those that run on the devices."""
    return {
      name: part.network
      for name, part in self.parts.items()
      if part.network is not None
    }

  @property
  def bank(self) -> Bank | None:
    """All banks as one."""
    return self.banks

  @property
  def own_views(self) -> tuple[str, ...]:
    """See `Teaching`."""
    return tuple(self.sizes)

  @property
  def stored(self) -> tuple[Bank, ...]:
    """See `Teaching`."""
    return tuple(b for part in self.parts.values() for b in part.stored)

  @property
  def spread(self) -> bool:
    """Whether no device has all of some teacher."""
    return any(part.spread for part in self.parts.values())

  @property
  def each(self) -> Mapping[str, Teaching]:
    """See `Teaching`."""
    return self.parts

  def kept(self, mesh: Mesh) -> Mapping[str, Variables]:
    """See `Teaching`."""
    found = self.per_device(mesh)
    return {name: found[name] for name in self.networks}

  def basis_of(self, tap: str) -> Mapping[str, Any] | None:
    """See `Teaching`; vectors side by side are in no bank's basis."""
    name, slash, own_tap = tap.partition("/")
    return self.parts[name].basis_of(own_tap) if slash else None

  def fingerprint_of(self, tap: str) -> str:
    """See `Teaching`."""
    name, slash, _ = tap.partition("/")
    return self.parts[name].fingerprint if slash else self.fingerprint

  def on(self, mesh: Mesh) -> Together:
    """See `Teaching`; a teacher without a network stays as it is."""
    parts = {
      name: part.on(mesh) if part.network is not None else part
      for name, part in self.parts.items()
    }
    return together(parts, self.sizes, self.banks)

  def place(self, mesh: Mesh) -> Variables:
    """{name: variables}, on the devices."""
    return {name: part.place(mesh) for name, part in self.parts.items()}

  def per_device(self, mesh: Mesh) -> Variables:
    """See `Teaching`, by name."""
    return {name: part.per_device(mesh) for name, part in self.parts.items()}

  def shardings(self, mesh: Mesh) -> Variables:
    """See `Teaching`, by name."""
    return {name: part.shardings(mesh) for name, part in self.parts.items()}


def together(
  parts: Mapping[str, Teaching],
  sizes: Mapping[str, int],
  banks: Bank | None = None,
) -> Together:
  """The teachers as one.

  Args:
    parts: {name: teacher}.
    sizes: {name: side of its own view, pixels}; others see the student's.
    banks: of those that are stored.
  """
  source = Several(
    tuple(
      Part(name, part.source, sizes.get(name, 0))
      for name, part in parts.items()
    )
  )
  prints = [f"{name}={part.fingerprint}" for name, part in parts.items()]
  variables = {name: part.variables for name, part in parts.items()}
  return Together(
    source,
    variables,
    " ".join(prints),
    parts=parts,
    sizes=sizes,
    banks=banks,
  )
