"""What the contenders of benchmarks/stagewise.py cost; nothing is trained."""

import pytest

from benchmarks import stagewise


@pytest.mark.slow
def test_a_stage_alone_costs_less_than_all_at_once(tmp_path):
  costs = {}
  for name, config in stagewise.contenders(8).items():
    if name in ("stage-wise", "joint"):
      config.teacher.update({"source": "random", "weights": ""})
      config.method.budget = "equal"
      costs[name] = stagewise.cost(config, tmp_path)
  assert 0 < costs["stage-wise"] < 0.9 * costs["joint"]


def test_rows_are_mean_and_deviation():
  assert stagewise.percent([0.5, 0.7]) == "60.0 ± 14.1"
  assert stagewise.percent([0.25]) == "25.0 ± 0.0"
