"""The teacher's side of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from kd_jax.data.bank import Bank, compatibility
from kd_jax.interfaces import TeacherSource
from kd_jax.models.backbone import Backbone
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.teacher.sharded import Placement, Sharded
from kd_jax.types import Network, Variables


@dataclasses.dataclass(frozen=True)
class Teaching:
  """A teacher that is ready to be asked.

  Attributes:
    source: yields taps.
    variables: of the teacher network, or constants of a bank; {} if the source
      keeps its weights to itself.
    fingerprint: of network and variables.
    fsdp: whether the variables are split over the devices.
  """

  source: TeacherSource
  variables: Mapping[str, Any]
  fingerprint: str
  fsdp: bool = False

  @property
  def network(self) -> Network | None:
    """The Flax network behind the source, if there is one."""
    return self.source.network

  @property
  def networks(self) -> Mapping[str, Network]:
    """{what to call it: network} of all that run on the devices."""
    return {} if self.network is None else {"teacher": self.network}

  @property
  def each(self) -> Mapping[str, Teaching]:
    """{what `networks` calls it: one teacher}."""
    return {"teacher": self}

  def kept(self, mesh: Mesh) -> Mapping[str, Variables]:
    """{what `networks` calls it: shapes of what each device keeps of it}."""
    return {name: self.per_device(mesh) for name in self.networks}

  @property
  def own_views(self) -> tuple[str, ...]:
    """Names of the teachers that see the crop otherwise than the student."""
    return ()

  @property
  def stored(self) -> tuple[Bank, ...]:
    """Every bank that taps come from."""
    return () if self.bank is None else (self.bank,)

  def basis_of(self, tap: str) -> Mapping[str, Any] | None:
    """Constants of a bank that hold the basis of a tap; None without one."""
    if self.bank is None:
      return None
    return compatibility.basis_of(self.variables, tap)

  def fingerprint_of(self, tap: str) -> str:
    """Of what a tap comes from."""
    del tap
    return self.fingerprint

  @property
  def bank(self) -> Bank | None:
    """What stores the taps, if no network runs."""
    stored = self.source.stored
    assert stored is None or isinstance(stored, Bank)
    return stored

  @property
  def spread(self) -> bool:
    """Whether no device has all of the teacher."""
    return isinstance(self.source, Sharded)

  def on(self, mesh: Mesh) -> Teaching:
    """The same, spread over the devices if they or the fields ask for it.

    Raises:
      ValueError: devices are to share layers, and there are none.
    """
    together = mesh.shape[mesh_lib.MODEL]
    if not self.fsdp and together == 1:
      return self
    if self.network is None:
      raise ValueError(
        f"config.mesh.model is {together}, but this teacher source runs no "
        "network on the devices; set --config.mesh.model=1"
      )
    source = Sharded(self.source, self._placement(mesh))
    return dataclasses.replace(self, source=source)

  def place(self, mesh: Mesh) -> Variables:
    """The variables, on the devices."""
    return self._placement(mesh).place(dict(self.variables))

  def per_device(self, mesh: Mesh) -> Variables:
    """Shapes of what each device keeps of the variables."""
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(s.shard_shape(x.shape), x.dtype),
      dict(self.variables),
      self.shardings(mesh),
    )

  def shardings(self, mesh: Mesh) -> Variables:
    """Where each of the variables lives between its uses."""
    return self._placement(mesh).kept(dict(self.variables))

  def _placement(self, mesh: Mesh) -> Placement:
    network = self.network
    rules = network.PARTITION if isinstance(network, Backbone) else ()
    return Placement(mesh, self.fsdp, rules)
