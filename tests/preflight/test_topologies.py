"""Names of slices, and what follows from published figures."""

import os

import pytest

from kd_jax.preflight import topologies
from kd_jax.preflight.chips import CHIPS, GIB


@pytest.mark.parametrize(
  ("name", "own", "chips", "hosts"),
  [
    ("v5e-8", "v5e:2x4", 8, 1),
    ("v5e-1", "v5e:1x1", 1, 1),
    ("v5litepod-256", "v5e:16x16", 256, 64),
    ("v5e:16x16", "v5e:16x16", 256, 64),
    ("v6e-64", "v6e:8x8", 64, 16),
    ("v5p-8", "v5p:2x2x1", 4, 1),  # people count TensorCores here
    ("v4-32", "v4:2x2x4", 16, 4),
    ("v5p:4x8x12", "v5p:4x8x12", 384, 96),
  ],
)
def test_people_and_libtpu_mean_the_same(name, own, chips, hosts):
  found = topologies.find(name)
  assert (found.name, found.chips, found.hosts) == (own, chips, hosts)


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("v9-8", "no TPU slice; write its shape"),
    ("v5e", "as in --config.topology=v5e:2x4"),
    ("v5e-7", r"no v5e slice of 7 chips; sizes are \[1, 4, 8, 16"),
    ("v4-4", r"of 4 TensorCores, two per chip; sizes are \[8, 16"),
    ("v5e:3x5", "no shape of a slice; of v5e there are"),
    ("v5e:4x4x4", "no shape of a slice"),
    ("v5p:4x6x4", "no shape of a slice"),
  ],
)
def test_other_names_are_refused(name, said):
  with pytest.raises(ValueError, match=said):
    topologies.find(name)


def test_rings_need_whole_axes():
  pod, part = topologies.find("v5e-256"), topologies.find("v5e-64")
  assert pod.collective_rate == 4 * 50e9 and pod.hops == 16
  assert part.collective_rate == 2 * 50e9 and part.hops == 14
  cube = topologies.find("v5p-128")
  assert cube.collective_rate == 6 * 100e9 and cube.hops == 6
  assert topologies.find("v5e-1").hops == 0
  # The published all-reduce of a pod, 51.2 TB/s.
  assert pod.chips * pod.collective_rate == 51.2e12


def test_figures_of_chips_hang_together():
  assert set(CHIPS) == {"v4", "v5e", "v5p", "v6e"}
  for name, chip in CHIPS.items():
    assert chip.name == name and name in chip.source
    # Every generation does 100 to 700 operations per byte of its memory.
    assert 100 < chip.peak_flops / chip.memory_rate < 700
    assert 0.9 < chip.usable_bytes / chip.memory_bytes < 1
    assert chip.link_rate < chip.memory_rate / 10
  assert CHIPS["v5e"].usable_bytes == 15.75 * GIB


def test_without_libtpu_one_line_names_the_extra(monkeypatch):
  monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
  before = dict(os.environ)
  with pytest.raises(ValueError, match="pip install -r requirements-tpu.txt"):
    topologies.devices(topologies.find("v5e-8"))
  assert dict(os.environ) == before
