"""Devices as a mesh, and where arrays live on it.

A mesh has the axes 'data' and 'model'. Batches are split over both. The state
is copied, or split over both (`fsdp`). Only the teacher knows the difference:
devices along 'model' share one copy of its layers.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from kd_jax.types import TreeT

DATA, MODEL = "data", "model"
AXES = (DATA, MODEL)


class Device(Protocol):
  """What is asked of a `jax.Device`, a class that type checkers cannot see."""

  id: int
  process_index: int

  def memory_stats(self) -> Mapping[str, int] | None:
    """Bytes by name; None where nothing counts them."""
    ...


Rules = tuple[tuple[str, int], ...]
"""((pattern of parameter paths, axis to split), ...): the first that fits."""


def make_mesh(
  devices: Sequence[Device] | None = None, *, model: int = 1
) -> Mesh:
  """All devices of all processes, sharded automatically.

  Those of a process are neighbours, so that its rows of a batch are too.

  Args:
    devices: None takes all.
    model: devices that share one copy of the teacher's layers.

  Raises:
    ValueError: `model` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if model < 1 or len(devices) % model:
    raise ValueError(
      f"config.mesh.model is {model}; it must divide the number of devices, "
      f"{len(devices)}: set --config.mesh.model=1, or another divisor"
    )
  ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
  grid = np.array(ordered).reshape(-1, model)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


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
  return NamedSharding(mesh, PartitionSpec(AXES))


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
  return (
    split_leaf(x, mesh, [None] * len(np.shape(x))) if fsdp else replicated(mesh)
  )


def rule_sharding(
  path: str, x: ArrayLike | jax.ShapeDtypeStruct, mesh: Mesh, rules: Rules
) -> NamedSharding:
  """Where one array of the teacher is while it is used.

  Matrices and kernels are split along 'model' as their rule says, if their
  size allows it; everything else is on every device.

  Args:
    path: of the array: 'params/stage1/block0/attn/qkv/kernel'.
    x: the array.
    mesh: the devices.
    rules: see `Backbone.PARTITION`.
  """
  shape, parts = np.shape(x), mesh.shape[MODEL]
  axes = [axis for pattern, axis in rules if fnmatch.fnmatch(path, pattern)]
  if parts == 1 or len(shape) < 2 or not axes or shape[axes[0]] % parts:
    return replicated(mesh)
  spec: list[str | None] = [None] * len(shape)
  spec[axes[0]] = MODEL
  return NamedSharding(mesh, PartitionSpec(*spec))


def split_leaf(
  x: ArrayLike | jax.ShapeDtypeStruct, mesh: Mesh, spec: Sequence[str | None]
) -> NamedSharding:
  """`spec` with the largest free axis split over the devices, if one fits.

  Over all of them; where `spec` uses 'model', over those along 'data'.
  """
  # What a compiled step returns names no axis of one device and ends with a
  # split axis; any other spelling would make the next call compile again.
  wide = [name for name in AXES if mesh.shape[name] > 1]
  over = tuple(name for name in wide if name not in spec)
  parts = math.prod(mesh.shape[name] for name in over)
  sizes = dict(enumerate(np.shape(x)))
  fit = [a for a, n in sizes.items() if not spec[a] and n and n % parts == 0]
  found: list[str | tuple[str, ...] | None] = list(spec)
  if fit and over:
    largest = max(fit, key=lambda axis: sizes[axis])
    found[largest] = over[0] if len(over) == 1 else over
  while found and found[-1] is None:
    found.pop()
  return NamedSharding(mesh, PartitionSpec(*found))


def put_batch(batch: TreeT, mesh: Mesh) -> TreeT:
  """This process's rows become its part of the global batch."""
  sharding, rows = sharded(mesh), jax.tree.map(np.asarray, batch)
  if jax.process_count() == 1:  # all arrays at once, in half the time
    return jax.device_put(rows, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), rows
  )
