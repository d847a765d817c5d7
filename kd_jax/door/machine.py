"""What this machine has, as far as defaults depend on it."""

from __future__ import annotations

import dataclasses
import os

import jax

from kd_jax import processes
from kd_jax.train.mesh import Device

SPARE = 0.6  # share of the memory that a run may be estimated to need
_CPU_GFLOPS = 40.0  # per second and core, of networks in float32


@dataclasses.dataclass(frozen=True)
class Machine:
  """Devices and memory.

  Attributes:
    kind: as JAX names a device.
    devices: how many.
    cores: of the CPU, that this process may use.
    memory: bytes of one device; of a CPU, its share; 0 where nobody knows.
    cpu: whether there is no accelerator.
  """

  kind: str
  devices: int
  cores: int
  memory: int
  cpu: bool

  def __str__(self) -> str:
    size = f", {self.memory / 1e9:.0f} GB" if self.memory else ""
    if self.cpu:
      return f"CPU with {self.cores} cores{size}"
    return f"{self.devices} x {self.kind}{size} each"

  @property
  def gflops(self) -> float:
    """Per second, cautiously; of CPUs only."""
    return _CPU_GFLOPS * self.cores


def look() -> Machine:
  """Asks JAX and the system.

  Raises:
    ValueError: JAX_PLATFORMS names no device that is here.
  """
  processes.check_devices()
  devices = jax.devices()
  cpu = devices[0].platform == "cpu"
  return Machine(
    kind=devices[0].device_kind,
    devices=len(devices),
    cores=len(os.sched_getaffinity(0)) if _linux() else os.cpu_count() or 1,
    memory=host_memory() // len(devices) if cpu else _of_device(devices[0]),
    cpu=cpu,
  )


def host_memory() -> int:
  """Bytes of the machine, used or not; 0 where the system does not say."""
  try:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (ValueError, OSError, AttributeError):  # not on every system
    return 0


def _of_device(device: Device) -> int:
  stats = device.memory_stats() or {}
  return int(stats.get("bytes_limit", 0))


def _linux() -> bool:
  return hasattr(os, "sched_getaffinity")
