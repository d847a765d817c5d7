"""Several methods at once, on one student and one teacher.

Every part is a method with its own fields and variables; its loss terms are
called 'part/term', and so are their weights in `config.losses`.

Example:
  config.method = {
    'name': 'multi',
    'parts': {'kdep': {'name': 'kdep'}, 'scalekd': {'name': 'scalekd'}},
  }
  config.losses = {'kdep/feature': 3.0, 'scalekd/final': .08}
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from kd_jax import interfaces, resolve, types
from kd_jax.types import Array, Batch, Needs, Phase, Specs, Taps, Teacher


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """The sum of the parts' terms.

  Attributes:
    terms: 'part/term' of all terms with a weight; a part without one is left
      out.
    parts: {part: {'name': method, ...its fields}}.

  Raises:
    ValueError: a term of no part, what a part says, or parts with several
      phases, phases that differ, or different bases.
  """

  terms: tuple[str, ...]
  parts: Mapping[str, Mapping[str, Any]]

  def __post_init__(self) -> None:
    strangers = [t for t in self.terms if t.partition("/")[0] not in self.parts]
    if strangers or not self.terms:
      raise ValueError(
        f"multi has the parts {sorted(self.parts)}; the loss terms are named "
        f"'part/term', and {strangers or 'none with a weight'} was given. "
        "Correct config.losses."
      )
    self._check_phases()
    if len(self._artifacts) > 1:
      raise ValueError(
        f"the parts read bases of the taps {sorted(self._artifacts)}; parts of "
        "multi can share one, not have several"
      )

  @functools.cached_property
  def methods(self) -> dict[str, interfaces.Method]:
    """The parts that have a term, built."""
    found = {}
    for name, fields in self.parts.items():
      terms = tuple(
        term.removeprefix(f"{name}/")
        for term in self.terms
        if term.startswith(f"{name}/")
      )
      if terms:
        fields = {**fields, "terms": terms}
        found[name] = resolve.build("methods", "Method", fields)
    return found

  @property
  def artifact_tap(self) -> str | None:
    """That of the part that has one."""
    return next(iter(self._artifacts), None)

  @property
  def reads_labels(self) -> bool:
    """Whether one part does."""
    return any(method.reads_labels for method in self.methods.values())

  def init(self, key: Array, student: Specs, teacher: Specs) -> types.Variables:
    """{'params': {part: ...}, part: its other variables}."""
    found: dict[str, Any] = {"params": {}}
    keys = jax.random.split(key, len(self.methods))
    for own, (name, method) in zip(keys, self.methods.items(), strict=True):
      variables = dict(method.init(own, student, teacher))
      params = variables.pop("params", {})
      if params:
        found["params"][name] = params
      if variables:
        found[name] = variables
    return found

  def phases(self) -> tuple[Phase, ...]:
    """One phase; what any part trains is trained."""
    phases = [method.phases()[0] for method in self.methods.values()]
    frozen = set(phases[0].frozen).intersection(*(p.frozen for p in phases))
    needs = Needs(
      student=_union(p.needs.student for p in phases),
      teacher=_union(p.needs.teacher for p in phases),
      resume=_union(p.needs.resume for p in phases),
    )
    return (
      dataclasses.replace(
        phases[0],
        name=" + ".join(phase.name for phase in phases),
        losses=self.losses,
        needs=needs,
        trainable=tuple(sorted({path for p in phases for path in p.trainable})),
        frozen=tuple(sorted(frozen)),
      ),
    )

  def losses(
    self,
    variables: types.Variables,
    taps: Taps,
    teacher: Teacher,
    batch: Batch,
  ) -> tuple[dict[str, Array], types.Stats]:
    """All terms, as 'part/term', and {part: new statistics}."""
    found, stats = {}, {}
    for name, method in self.methods.items():
      phase = method.phases()[0]
      own, new = phase.losses(_own(variables, name), taps, teacher, batch)
      found |= {f"{name}/{term}": loss for term, loss in own.items()}
      if new:
        stats[name] = new
    return found, stats

  def metrics(
    self,
    variables: types.Variables,
    taps: Taps,
    teacher: Teacher,
    batch: Batch,
  ) -> dict[str, tuple[Array, Array]]:
    """Those of the parts, as 'part/figure'."""
    return {
      f"{name}/{figure}": value
      for name, method in self.methods.items()
      for figure, value in method.metrics(
        _own(variables, name), taps, teacher, batch
      ).items()
    }

  @property
  def _artifacts(self) -> list[str]:
    taps = (method.artifact_tap for method in self.methods.values())
    return sorted({tap for tap in taps if tap is not None})

  def _check_phases(self) -> None:
    several = [
      name
      for name, method in self.methods.items()
      if method.needs_networks or len(method.phases()) > 1
    ]
    if several:
      raise ValueError(
        f"the parts {several} train in several phases; multi adds methods of "
        "one phase. Run them one after the other, with config.init_from."
      )
    for field in ("train_from", "end", "data"):
      values = {
        name: getattr(method.phases()[0], field)
        for name, method in self.methods.items()
      }
      if len(set(values.values())) > 1:
        raise ValueError(
          f"the parts of multi run in the same steps, and their phases differ "
          f"in {field}: {values}"
        )


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
  return tuple(sorted({tap for group in groups for tap in group}))


def _own(variables: types.Variables, name: str) -> types.Variables:
  """What the part `name` may read."""
  return {
    "artifact": variables.get("artifact", {}),
    **variables.get(name, {}),
    "params": variables.get("params", {}).get(name, {}),
  }
