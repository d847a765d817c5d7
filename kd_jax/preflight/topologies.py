"""TPU slices by name, and devices that a program can be compiled for."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Sequence

import jax

from kd_jax.preflight.chips import CHIPS, HOP_SECONDS, Chip
from kd_jax.train.mesh import Device

EXTRA = "pip install -r requirements-tpu.txt"
_NAME = re.compile(r"(v4|v5e|v5p|v6e|v5litepod)[:-](\d+(?:x\d+)*)")
# What a slice of so many chips is shaped like, as Google offers them.
_FLAT = {
  1: (1, 1),
  4: (2, 2),
  8: (2, 4),
  16: (4, 4),
  32: (4, 8),
  64: (8, 8),
  128: (8, 16),
  256: (16, 16),
}
_CUBIC = {
  4: (2, 2, 1),
  8: (2, 2, 2),
  16: (2, 2, 4),
  32: (2, 4, 4),
  64: (4, 4, 4),
  128: (4, 4, 8),
  256: (4, 8, 8),
  512: (8, 8, 8),
  1024: (8, 8, 16),
  2048: (8, 16, 16),
  4096: (16, 16, 16),
}
# What libtpu wants to hear of the machine; none of it is asked for later.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  # Compiling does not need the chip: others may hold it, or compile too.
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice.

  Attributes:
    name: as libtpu has it: 'v5e:2x4'.
    chip: of which kind.
    shape: chips along the axes of the torus.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def chips(self) -> int:
    """How many there are; each is one device of JAX."""
    return math.prod(self.shape)

  @property
  def host_shape(self) -> tuple[int, int, int]:
    """Chips of one machine along the axes: up to eight of 2D chips, else four.

    Source: the VM types of docs.cloud.google.com/tpu/docs/v5e and v6e, of which
    slices of several machines have four chips each.
    """
    if self.chip.axes == 2 and self.chips <= 8:
      return self.shape[0], self.shape[1], 1
    return 2, 2, 1

  @property
  def hosts(self) -> int:
    """Machines."""
    return self.chips // math.prod(self.host_shape)

  @property
  def collective_rate(self) -> float:
    """Bytes per second that a chip sends in collectives over all chips.

    An axis that closes to a ring offers two links, another one a single link:
    everything passes that of the chip at its end.
    """
    return self.chip.link_rate * sum(
      1 + self._wraps(size) for size in self.shape if size > 1
    )

  @property
  def hops(self) -> int:
    """From a chip to the farthest one."""
    return sum(
      size // 2 if self._wraps(size) else size - 1 for size in self.shape
    )

  @property
  def latency(self) -> float:
    """Seconds in which a message reaches all chips, however short it is."""
    return self.hops * HOP_SECONDS

  def _wraps(self, size: int) -> bool:
    return size % self.chip.wraps_from == 0


def find(name: str) -> Topology:
  """The slice that people ('v5e-8', 'v4-8') or libtpu ('v5e:2x4') call so.

  Raises:
    ValueError: there is none.
  """
  found = _NAME.fullmatch(name)
  if not found:
    raise ValueError(
      f"topology={name!r} is no TPU slice; write its shape, as in "
      "--config.topology=v5e:2x4, or its size, as in v5e-8, v6e-64, v5p-8; "
      f"chips are {sorted(CHIPS)}"
    )
  kind, size = found.groups()
  chip = CHIPS["v5e" if kind == "v5litepod" else kind]
  return _of_shape(name, chip, size) if ":" in name else _of_size(chip, size)


def _of_shape(name: str, chip: Chip, text: str) -> Topology:
  shape = tuple(map(int, text.split("x")))
  known = _FLAT if chip.axes == 2 else _CUBIC
  # Other shapes exist of cubes of 4 x 4 x 4.
  cubes = chip.axes == 3 == len(shape) and all(n % 4 == 0 < n for n in shape)
  if shape not in known.values() and not cubes:
    raise ValueError(
      f"topology={name!r} has no shape of a slice; of {chip.name} there are "
      f"{['x'.join(map(str, shape)) for shape in known.values()]}"
    )
  return Topology(name, chip, shape)


def _of_size(chip: Chip, text: str) -> Topology:
  known = _FLAT if chip.axes == 2 else _CUBIC
  sizes = {str(chips * chip.cores): shape for chips, shape in known.items()}
  if text not in sizes:
    what = "TensorCores, two per chip" if chip.counts_cores else "chips"
    raise ValueError(
      f"there is no {chip.name} slice of {text} {what}; sizes are "
      f"{[int(size) for size in sizes]}"
    )
  shape = sizes[text]
  return Topology(f"{chip.name}:{'x'.join(map(str, shape))}", chip, shape)


def devices(topology: Topology) -> Sequence[Device]:
  """Devices to compile for, sorted by process and number; none can compute.

  Raises:
    ValueError: libtpu is missing, or does not know the slice.
  """
  check_installed()
  from jax.experimental import topologies

  options: dict[str, object] = {"chips_per_host_bounds": topology.host_shape}
  if topology.chip.counts_cores:
    options["chip_config_name"] = "megacore"  # two cores are one device
  with _environment():
    try:
      found = topologies.get_topology_desc(
        platform="tpu", topology_name=topology.name, **options
      ).devices
    except jax.errors.JaxRuntimeError as error:
      first = str(error).splitlines()[0]
      raise ValueError(
        f"libtpu has no topology {topology.name!r} ({first}); name another "
        "one with --config.topology"
      ) from error
  return sorted(found, key=lambda device: (device.process_index, device.id))


def check_installed() -> None:
  """Whether there is a compiler for TPUs.

  Raises:
    ValueError: there is none.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      f"compiling for TPUs needs libtpu, which does not need a TPU: {EXTRA}"
    )


def on_cpu() -> None:
  """Keeps JAX off accelerators: everything but the compilation is for the CPU.

  No effect where JAX has devices already.
  """
  if not os.environ.get("JAX_PLATFORMS"):
    jax.config.update("jax_platforms", "cpu")


@contextlib.contextmanager
def _environment() -> Iterator[None]:
  """What libtpu reads while it is loaded, and no longer."""
  kept = {name: os.environ.get(name) for name in _ENVIRONMENT}
  os.environ.update({k: v for k, v in _ENVIRONMENT.items() if kept[k] is None})
  try:
    yield
  finally:
    for name, value in kept.items():
      if value is None:
        os.environ.pop(name, None)
