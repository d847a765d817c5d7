"""Several methods at once, on one student.

Every part is a method with its own fields and variables; its loss terms are
called 'part/term', and so are their weights in `config.losses`. All parts read
the same teacher, or each part the teacher that has its name.

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
from kd_jax.methods import heard
from kd_jax.methods.balance.base import BalanceBase
from kd_jax.types import (
  Array,
  Artifact,
  Batch,
  LossFn,
  Needs,
  Phase,
  Specs,
  Taps,
  Teacher,
)

WHOLE = ""
"""Name of the part that hears all teachers; its terms have no '/'."""


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """The sum of the parts' terms.

  Attributes:
    terms: 'part/term' of all terms with a weight; a part without one is left
      out.
    parts: {part: {'name': method, ...its fields}}.
    apart: whether each part reads only the teacher of its name, whose taps are
      'part/tap'.
    balance: {'name': file of methods/balance, ...its fields}.

  Raises:
    ValueError: a term of no part, what a part says, or parts whose phases
      differ, or different bases of one teacher.
  """

  terms: tuple[str, ...]
  parts: Mapping[str, Mapping[str, Any]]
  apart: bool = False
  balance: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {"name": "fixed"}
  )

  def __post_init__(self) -> None:
    strangers = [t for t in self.terms if part_of(t) not in self.parts]
    if strangers or not self.terms:
      raise ValueError(
        f"multi has the parts {sorted(self.parts)}; the loss terms are named "
        f"'part/term', and {strangers or 'none with a weight'} was given. "
        "Correct config.losses."
      )
    self._check_phases()
    taps = {n: m.artifact_taps for n, m in self.methods.items()}
    if any(taps.values()) and not self.apart:
      raise ValueError(
        f"the parts {[n for n in taps if taps[n]]} read bases of several taps, "
        "which parts of multi cannot; make them methods of a teacher each, in "
        "config.teachers"
      )
    if len(self._artifacts) > 1 and not self.apart:
      raise ValueError(
        f"the parts read bases of the taps {sorted(self._artifacts)}; parts of "
        "multi can share one, not have several"
      )
    self._check_balance()

  @functools.cached_property
  def methods(self) -> dict[str, interfaces.Method]:
    """The parts that have a term, built."""
    found = {}
    for name, fields in self.parts.items():
      terms = tuple(
        term.removeprefix(_start(name))
        for term in self.terms
        if part_of(term) == name
      )
      if terms:
        fields = {**fields, "terms": terms}
        found[name] = resolve.build("methods", "Method", fields)
    return found

  @functools.cached_property
  def balancer(self) -> BalanceBase:
    """What `balance` names."""
    return resolve.build("methods.balance", "Balance", self.balance)

  @property
  def artifact_tap(self) -> str | None:
    """That of the part that has one; none where parts have their own."""
    return None if self.apart else next(iter(self._artifacts), None)

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """Those of all parts, with the names of their teachers."""
    if not self.apart:
      return ()
    return tuple(
      _start(name) + tap
      for name, method in self.methods.items()
      for tap in heard.artifact_taps(method)
    )

  def artifact_widths(self, student: Specs) -> Mapping[str, int]:
    """Of the parts that read as many directions as the student has channels."""
    found: dict[str, int] = {}
    for name, method in self.methods.items():
      widths = dict(method.artifact_widths(student))
      if method.artifact_tap is not None:
        widths[method.artifact_tap] = student[method.artifact_tap].shape[-1]
      found |= {_start(name) + tap: width for tap, width in widths.items()}
    return found

  def refined(self, tap: str, artifact: Artifact, teacher: Specs) -> Artifact:
    """As the part says that reads it."""
    name = part_of(tap)
    tap = tap.removeprefix(_start(name))
    return self.methods[name].refined(tap, artifact, self._of(teacher, name))

  @property
  def reads_labels(self) -> bool:
    """Whether one part does."""
    return any(method.reads_labels for method in self.methods.values())

  def init(self, key: Array, student: Specs, teacher: Specs) -> types.Variables:
    """{'params': {part: ...}, part: its other variables}."""
    found: dict[str, Any] = {"params": {}}
    # The method of a single teacher is what it is without others.
    several = len(self.methods) > 1 or not self.apart
    keys = jax.random.split(key, len(self.methods)) if several else [key]
    for own, (name, method) in zip(keys, self.methods.items(), strict=True):
      specs = self._of(teacher, name)
      variables = dict(method.init(own, student, specs))
      params = variables.pop("params", {})
      if params:
        found["params"][name or "all"] = params
      if variables:
        found[name or "all"] = variables
    stats = self.balancer.init(self.terms)
    return {**found, "_balance": stats} if stats else found

  def phases(self) -> tuple[Phase, ...]:
    """Those of the parts, side by side; what any part trains is trained."""
    columns = zip(*(m.phases() for m in self.methods.values()), strict=True)
    return tuple(
      self._phase(index, column) for index, column in enumerate(columns)
    )

  def losses(
    self,
    variables: types.Variables,
    taps: Taps,
    teacher: Teacher,
    batch: Batch,
    index: int = 0,
  ) -> tuple[dict[str, Array], types.Stats]:
    """All terms, as 'part/term', and {part: new statistics}.

    Args:
      variables: of all parts.
      taps: the student's.
      teacher: all teachers.
      batch: images and labels.
      index: of the phase.

    Raises:
      ValueError: a balance that draws gets no 'key' among the variables.
    """
    found, stats = {}, {}
    for name, method in self.methods.items():
      loss = method.phases()[index].losses
      given = (
        self._own(variables, name),
        taps,
        self._heard(teacher, name),
        batch,
      )
      own, new = loss(*given)
      if self.balancer.needs_images:
        own = method.image_losses(*given)
      found |= {_start(name) + term: value for term, value in own.items()}
      if new:
        stats[name or "all"] = new
    before = variables.get("_balance", {})
    key = variables.get("key")
    found, after = self.balancer.balanced(before, found, key)
    return found, {**stats, "_balance": after} if after else stats

  def metrics(
    self,
    variables: types.Variables,
    taps: Taps,
    teacher: Teacher,
    batch: Batch,
  ) -> dict[str, tuple[Array, Array]]:
    """Those of the parts, as 'part/figure'."""
    return {
      _start(name) + figure: value
      for name, method in self.methods.items()
      for figure, value in method.metrics(
        self._own(variables, name), taps, self._heard(teacher, name), batch
      ).items()
    }

  @property
  def _artifacts(self) -> list[str]:
    taps = (method.artifact_tap for method in self.methods.values())
    return sorted({tap for tap in taps if tap is not None})

  def _phase(self, index: int, phases: tuple[Phase, ...]) -> Phase:
    frozen = set(phases[0].frozen).intersection(*(p.frozen for p in phases))
    named = [_start(name) if self.apart else "" for name in self.methods]
    needs = [phase.needs for phase in phases]
    losses: LossFn = functools.partial(self.losses, index=index)
    seconds = [phase.hidden for phase in phases if phase.hidden]
    return dataclasses.replace(
      phases[0],
      name=" + ".join(phase.name for phase in phases),
      losses=losses if index else self.losses,
      needs=Needs(
        student=_union(n.student for n in needs),
        teacher=_union(
          _put(s, n.teacher) for s, n in zip(named, needs, strict=True)
        ),
        resume=_union(
          _put(s, n.resume) for s, n in zip(named, needs, strict=True)
        ),
      ),
      trainable=_union(phase.trainable for phase in phases),
      frozen=tuple(sorted(frozen)),
      may_vanish=_union(
        _put(_start(name), phase.may_vanish)
        for name, phase in zip(self.methods, phases, strict=True)
      ),
      hidden=seconds[0] if seconds else None,
    )

  def _of(self, teacher: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the part `name` may read of what teachers say."""
    return heard.own(teacher, name) if self.apart and name else teacher

  def _heard(self, teacher: Teacher, name: str) -> Teacher:
    return heard.alone(teacher, name) if self.apart and name else teacher

  def _own(self, variables: types.Variables, name: str) -> types.Variables:
    """What the part `name` may read of the variables."""
    kept = name or "all"
    artifact = variables.get("artifact", {})
    if self.apart:
      artifact = heard.artifact(self.methods[name], artifact, _start(name))
    key = {"key": variables["key"]} if "key" in variables else {}
    return {
      **key,
      "artifact": artifact,
      **variables.get(kept, {}),
      "params": variables.get("params", {}).get(kept, {}),
    }

  def _check_balance(self) -> None:
    if not self.balancer.needs_images:
      return
    lacking = {
      name: sorted(set(method.terms) - set(method.image_terms))
      for name, method in self.methods.items()
    }
    lacking = {name: terms for name, terms in lacking.items() if terms}
    if lacking:
      raise ValueError(
        f"the balance {self.balance['name']!r} needs the loss of every image, "
        f"and these terms have none: {lacking}. Set --config.balance.name="
        "fixed, or give them the weight 0."
      )

  def _check_phases(self) -> None:
    several = [n for n, m in self.methods.items() if m.needs_networks]
    if several:
      raise ValueError(
        f"the phases of the parts {several} depend on the networks; multi adds "
        "methods whose phases are known. Run them one after the other, with "
        "config.init_from."
      )
    phases = {name: m.phases() for name, m in self.methods.items()}
    counts = {name: len(found) for name, found in phases.items()}
    if len(set(counts.values())) > 1:
      raise ValueError(
        f"the parts of multi run in the same steps, and they train in {counts} "
        "phases"
      )
    for field in ("train_from", "end", "data", "steps_frac", "fresh_opt"):
      values = {
        name: tuple(getattr(phase, field) for phase in found)
        for name, found in phases.items()
      }
      if len(set(values.values())) > 1:
        raise ValueError(
          f"the parts of multi run in the same steps, and their phases differ "
          f"in {field}: {values}"
        )
    seconds = {
      name: phase.hidden
      for name, found in phases.items()
      for phase in found
      if phase.hidden
    }
    if len(set(seconds.values())) > 1:
      raise ValueError(
        "the student of multi runs once more on partly hidden images, and its "
        f"parts want that in several ways: {seconds}. Make their fields equal."
      )


def part_of(term: str) -> str:
  """The part that a term, or the teacher that a tap belongs to."""
  name, slash, _ = term.partition("/")
  return name if slash else WHOLE


def _start(name: str) -> str:
  return f"{name}/" if name else ""


def _put(start: str, names: Iterable[str]) -> list[str]:
  return [start + name for name in names]


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
  return tuple(sorted({tap for group in groups for tap in group}))
