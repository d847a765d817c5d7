"""FKD's and ReLabel's recipes, and their smoke variants, bank to student."""

import json
import pathlib

import numpy as np
import pytest

from kd_jax import config as config_lib
from kd_jax import main
from kd_jax.build import training
from kd_jax.train import phases
from kd_jax.train.optim import Optim

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "fkd_schedule.npz"


def load(name):
  return config_lib.load(str(ROOT / "configs" / f"{name}.py"))


@pytest.mark.parametrize(
  ("name", "kind"), [("fkd_r50", "cnn"), ("fkd_deit_tiny", "vit")]
)
def test_the_papers_recipe(name, kind):
  config = load(name)
  epoch = 1_281_167 // 1024
  assert (config.batch_size, config.steps) == (1024, 300 * epoch)
  golden = np.load(GOLDEN)
  rate = Optim(**config.optim.to_dict()).rate(config.steps)
  first, crops = golden[f"{kind}_epoch"], golden[f"{kind}_num_crops"]
  for i in (0, 4, 5, 40, -5, -4, -3, -2):
    step = int(first[i] + crops[i]) * epoch - 1
    want = float(golden[f"{kind}_lr"][i])
    assert float(rate(step)) == pytest.approx(want, rel=2e-3)
  # Every pass has the number of crops of the authors' code.
  found = phases.stretches(
    training.method(config),
    config.steps,
  )
  for stretch in found:
    inside = (first * epoch >= stretch.start) & (first * epoch < stretch.stop)
    views = {"num_crops": 4, **dict(stretch.phase.data)}
    assert set(crops[inside]) == {views["num_crops"]}


@pytest.mark.parametrize(
  ("bank", "student"),
  [
    pytest.param("bank_fkd", "fkd_deit_tiny", marks=pytest.mark.slow),
    ("bank_relabel", "relabel_r50"),
  ],
)
def test_smoke_runs_from_bank_to_student(bank, student, tmp_path):
  spec = f"{ROOT}/configs/{bank}.py:smoke"
  folder = tmp_path / "bank"
  assert main.main(["--config", spec, "--workdir", str(folder)]) == 0
  arguments = ["--workdir", str(tmp_path / "run")]
  arguments += ["--config", f"{ROOT}/configs/{student}.py:smoke"]
  arguments += [f"--config.teacher.weights={folder / 'bank'}"]
  assert main.main(arguments) == 0
  text = (tmp_path / "run" / "metrics.jsonl").read_text()
  found = [json.loads(line) for line in text.splitlines()]
  losses = [line["loss/soft"] for line in found if "loss/soft" in line]
  assert len(set(losses)) == 4 and losses[3] < losses[0]
  assert 0 <= found[-1]["eval/top1"] <= 1
