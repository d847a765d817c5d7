"""The quickstart's student that learns from a bank, for real, in few steps."""

import numpy as np
import pytest

import runs
from benchmarks import bank as benchmark
from kd_jax import main
from kd_jax.data.bank import Bank
from kd_jax.report import metrics


@pytest.mark.slow
def test_a_student_learns_from_eight_bits_per_direction(tmp_path, capsys):
  spec = f"{runs.ROOT}/configs/quickstart.py:bank_smoke"
  arguments = ["--config", spec, "--workdir", str(tmp_path)]
  order = "--config.order=('teacher','bank','bank8','stored8')"
  rows = "--config.rows=('scratch','stored8')"
  assert main.main([*arguments, order, rows]) == 0
  found = [
    line
    for line in capsys.readouterr().out.splitlines()
    if line.startswith("KDEP from a bank, int8")
  ]
  assert len(found) == 2 and all("±" in line for line in found)
  bank = Bank(str(tmp_path / "bank8" / "bank"))
  assert bank.num_passes == 1 and bank.header.bytes_per_crop == 14 + 64
  stored = bank.shard(0, 0)["directions"]
  assert stored.shape == (256, 1, 64) and stored.std(0).min() > 5
  # The other bank has float32 features of the very same crops.
  assert 1e-6 < benchmark.int8_error(tmp_path) < 6e-5
  found = [
    line.get("loss/feature") for line in metrics.read(tmp_path / "stored8")
  ]
  losses = np.array([loss for loss in found if loss])
  assert len(losses) == 4 and losses[-1] < losses[0]
