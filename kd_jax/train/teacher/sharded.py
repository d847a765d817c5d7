"""A teacher network that is spread over devices instead of copied to each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kd_jax.interfaces import EvaluationView, TeacherSource, computed
from kd_jax.train import mesh as mesh_lib
from kd_jax.types import Array, Batch, Network, Taps, Teacher, TreeT, Variables


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where the variables of a teacher live.

  Attributes:
    mesh: the devices.
    fsdp: whether every array is split over all devices, and gathered for the
      layer that is about to use it.
    rules: how layers are split over the devices along 'model', which work on
      them together.
  """

  mesh: Mesh
  fsdp: bool = False
  rules: mesh_lib.Rules = ()

  @property
  def shared(self) -> bool:
    """Whether devices work on layers together."""
    return self.mesh.shape[mesh_lib.MODEL] > 1

  def used(self, variables: TreeT) -> TreeT:
    """The sharding of every array while it is used."""
    return jax.tree_util.tree_map_with_path(self._used, variables)

  def kept(self, variables: TreeT) -> TreeT:
    """The sharding of every array between its uses."""
    if not self.fsdp:
      return self.used(variables)

    def of(path: jax.tree_util.KeyPath, x: Array) -> NamedSharding:
      spec = tuple(self._used(path, x).spec)
      padded = [*spec, *[None] * (x.ndim - len(spec))]
      return mesh_lib.split_leaf(x, self.mesh, padded)

    return jax.tree_util.tree_map_with_path(of, variables)

  def place(self, variables: TreeT) -> TreeT:
    """Copies the variables, the same on every process, to the devices."""
    return jax.tree.map(
      lambda x, at: jax.device_put(x, at, may_alias=False),
      variables,
      self.kept(variables),
    )

  def _used(self, path: jax.tree_util.KeyPath, x: Array) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return mesh_lib.rule_sharding(name, x, self.mesh, self.rules)


@dataclasses.dataclass(frozen=True)
class Sharded(TeacherSource):
  """Asks `source`, whose variables are spread by `placement`.

  Devices along 'model' see the same images, all of those that the rest of the
  step shares out between them; taps are shared out again.
  """

  source: TeacherSource
  placement: Placement

  @computed
  def can_resume(self) -> bool:
    """As `source`."""
    return self.source.can_resume

  @property
  def can_mix(self) -> bool:
    """As `source`."""
    return self.source.can_mix

  @property
  def network(self) -> Network | None:
    """Of `source`."""
    return self.source.network

  @property
  def stored(self) -> object | None:
    """Of `source`."""
    return self.source.stored

  @property
  def fingerprint(self) -> str:
    """Of `source`."""
    return self.source.fingerprint

  @property
  def evaluation_view(self) -> EvaluationView:
    """Of `source`."""
    return self.source.evaluation_view

  def stored_specs(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of `source`."""
    return self.source.stored_specs(rows)

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """Taps of `batch`, split over all devices as the batch is."""
    variables = self._gathered(frozen["teacher"])
    found = self.source({**frozen, "teacher": variables}, self._shown(batch))
    taps = self._shared_out(dict(found.taps))
    if found.resume is None:
      return Teacher(taps, None)
    return Teacher(taps, self._resumed(found.resume))

  def _resumed(self, resume: Callable[..., Taps]) -> Callable[..., Taps]:
    def run(begin: str, x: Array, end: str = "head") -> Taps:
      found = resume(begin, self._shown(x), end=end)
      return self._shared_out(dict(found))

    return run

  def _gathered(self, variables: Variables) -> Variables:
    if not self.placement.fsdp:
      return variables
    at = self.placement.used(variables)
    return jax.lax.with_sharding_constraint(variables, at)

  def _shown(self, tree: TreeT) -> TreeT:
    """Rows split along 'data', the same ones for devices along 'model'."""
    return self._split(tree, mesh_lib.DATA)

  def _shared_out(self, tree: TreeT) -> TreeT:
    """Rows split over all devices."""
    return self._split(tree, mesh_lib.AXES)

  def _split(self, tree: TreeT, over: str | tuple[str, ...]) -> TreeT:
    mesh = self.placement.mesh
    at = NamedSharding(mesh, PartitionSpec(over))

    def one(x: Array) -> Array:
      # Rows that cannot be shared out are only ever traced, not run.
      even = x.ndim and x.shape[0] % mesh.size == 0
      return jax.lax.with_sharding_constraint(x, at) if even else x

    return jax.tree.map(one, tree) if self.placement.shared else tree
