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
  assert main.main([*arguments, order]) == 0
  (row,) = (
    line
    for line in capsys.readouterr().out.splitlines()
    if line.startswith("KDEP from a bank, int8")
  )
  assert "(2 seeds)" in row
  bank = Bank(str(tmp_path / "bank8" / "bank"))
  assert bank.num_passes == 3 and bank.header.bytes_per_crop == 14 + 48
  stored = bank.shard(2, 0)["directions"]
  assert stored.shape == (128, 1, 48) and stored.std(0).min() > 5
  # The other bank has float32 features of the very same crops.
  assert 1e-6 < benchmark.int8_error(tmp_path) < 6e-5
  found = [
    line.get("loss/feature") for line in metrics.read(tmp_path / "stored8")
  ]
  losses = np.array([loss for loss in found if loss])
  assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
