"""Devices as one mesh axis, and where arrays live on it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from kd_jax.types import Batch, TreeT

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices of all processes along one axis, sharded automatically."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch(
  batch_size: int,
  mesh: Mesh,
  accum_steps: int = 1,
  *,
  field: str = "batch_size",
) -> None:
  """Refuses a global batch that the devices cannot share evenly.

  Args:
    batch_size: global.
    mesh: the devices.
    accum_steps: microbatches per update.
    field: of the config, for the message.

  Raises:
    ValueError: `batch_size` is no multiple of devices x accumulation steps.
  """
  if accum_steps < 1:
    raise ValueError(f"accum_steps is {accum_steps}; it must be at least 1")
  unit = mesh.size * accum_steps
  if batch_size <= 0 or batch_size % unit:
    raise ValueError(
      f"{field} is {batch_size}; it must be a positive multiple of {unit} "
      f"({mesh.size} devices x accum_steps={accum_steps}). The nearest is "
      f"--config.{field}={max(round(batch_size / unit), 1) * unit}."
    )


def sharded(mesh: Mesh) -> NamedSharding:
  """The first axis is split over the devices."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def place(tree: TreeT, mesh: Mesh, *, fsdp: bool = False) -> TreeT:
  """Copies a tree (the same on every process) to the mesh.

  Args:
    tree: arrays.
    mesh: the mesh.
    fsdp: split each array along its largest divisible axis instead of copying
      it to every device (fully sharded data parallel).
  """

  def put(x: ArrayLike) -> jax.Array:
    # A buffer shared with the caller, or between parameters and their moving
    # average, could not be donated.
    return jax.device_put(x, leaf_sharding(x, mesh, fsdp=fsdp), may_alias=False)

  return jax.tree.map(put, tree)


def leaf_sharding(
  x: ArrayLike | jax.ShapeDtypeStruct, mesh: Mesh, *, fsdp: bool
) -> NamedSharding:
  """Where one array of the train state lives."""
  axes = [a for a, n in enumerate(np.shape(x)) if n and n % mesh.size == 0]
  if not fsdp or not axes:
    return replicated(mesh)
  largest = max(axes, key=lambda a: np.shape(x)[a])
  return NamedSharding(mesh, PartitionSpec(*[None] * largest, AXIS))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """This process's rows become its part of the global batch."""
  sharding = sharded(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    batch,
  )
