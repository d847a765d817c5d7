"""Published figures of TPU chips, each with its source.

Only what Google publishes, and two figures that it does not: what a hop
between neighbours takes, and how much of the memory a program can have.
"""

from __future__ import annotations

import dataclasses

GIB = 2**30

HOP_SECONDS = 1e-6
"""Latency of one hop between neighbouring chips, of any kind of chip. Assumed:
'about 1us per hop' in jax-ml.github.io/scaling-book/sharding; Google publishes
none."""

RESERVED_BYTES = GIB // 4
"""Of a chip's memory that no program gets. libtpu 0.0.42 refuses programs on
v5e above 15.75 of 16 GiB; assumed for the others."""


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of chip; it is one device of JAX.

  Attributes:
    name: as in topologies: 'v5e'.
    kind: what JAX calls the device.
    peak_flops: bfloat16 operations per second.
    memory_bytes: of its HBM.
    memory_rate: bytes per second of its HBM.
    link_rate: bytes per second of one link between chips, in one direction.
    axes: of the torus; a chip has two links along each.
    wraps_from: an axis of so many chips, or a multiple, closes to a ring.
    cores: TensorCores, which the sizes in names such as 'v4-8' count.
    source: where the figures stand.
  """

  name: str
  kind: str
  peak_flops: float
  memory_bytes: int
  memory_rate: float
  link_rate: float
  axes: int
  wraps_from: int
  cores: int
  source: str

  @property
  def usable_bytes(self) -> int:
    """Memory that a program can have."""
    return self.memory_bytes - RESERVED_BYTES

  @property
  def counts_cores(self) -> bool:
    """Whether 'v4-8' is eight TensorCores, and not eight chips."""
    return self.cores > 1


CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name="v4",
      kind="TPU v4",
      peak_flops=275e12,  # 'Peak compute per chip: 275 teraflops (bf16)'
      memory_bytes=32 * GIB,  # '32 GiB'
      memory_rate=1200e9,  # '1200 GBps'
      # The page has 1.1 PB/s for the all-reduce of 4096 chips, 45 GB/s for
      # each of the six links of a chip.
      link_rate=45e9,
      axes=3,
      wraps_from=4,  # 'each dimension is a multiple of 4'
      cores=2,
      source="https://docs.cloud.google.com/tpu/docs/v4",
    ),
    Chip(
      name="v5e",
      kind="TPU v5 lite",
      peak_flops=197e12,  # 'Peak compute per chip (bf16): 197 TFLOPs'
      memory_bytes=16 * GIB,  # '16 GB'
      memory_rate=819e9,  # '819 GBps', 800 GiBps in an older version
      # 'Bidirectional ICI bandwidth (per chip): 400 GBps', 4 ports, both ways;
      # so has the all-reduce of a pod: 51.2 TB/s, 256 chips.
      link_rate=50e9,
      axes=2,
      wraps_from=16,  # a whole pod is a '2D torus' of 16 x 16
      cores=1,
      source="https://docs.cloud.google.com/tpu/docs/v5e",
    ),
    Chip(
      name="v5p",
      kind="TPU v5",
      peak_flops=459e12,  # 'Peak compute per chip (BF16): 459'
      memory_bytes=95 * GIB,  # 'HBM capacity per chip (GiB): 95'
      memory_rate=2765e9,  # 'HBM bandwidth per chip (GBps): 2765'
      # 'Bidirectional ICI bandwidth per chip (GBps): 1200', six links.
      link_rate=100e9,
      axes=3,
      wraps_from=4,
      cores=2,
      source="https://docs.cloud.google.com/tpu/docs/v5p",
    ),
    Chip(
      name="v6e",
      kind="TPU v6 lite",
      peak_flops=918e12,  # 'Peak compute per chip (bf16): 918 TFLOPs'
      memory_bytes=32 * GIB,  # 'HBM capacity per chip: 32 GB'
      memory_rate=1638e9,  # 'HBM bandwidth per chip: 1638 GBps'
      # 'Bidirectional ICI bandwidth (per chip): 800 GBps', 4 ports.
      link_rate=100e9,
      axes=2,
      wraps_from=16,
      cores=1,
      source="https://docs.cloud.google.com/tpu/docs/v6e",
    ),
  )
}
