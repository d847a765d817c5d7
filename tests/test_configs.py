"""Every config loads, is locked, and its smoke variant runs for real."""

import json
import pathlib

import numpy as np
import pytest

from kd_jax import config as config_lib
from kd_jax import main, resolve
from kd_jax.build import images
from kd_jax.convert import load_pretrained
from kd_jax.train.optim import Optim

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  if path.stem != "__init__" and not path.stem.startswith("common")
)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_a_locked_lab_note(name):
  path = ROOT / "configs" / f"{name}.py"
  config = config_lib.load(str(path))
  assert config.is_locked
  assert config.task in resolve.names("tasks", "run")
  text = path.read_text()
  assert f"--config configs/{name}.py" in text and "Expected" in text
  with pytest.raises(ValueError, match="no variant 'nosuch'"):
    config_lib.load(f"{path}:nosuch")


def test_the_papers_recipe():
  config = config_lib.load(str(ROOT / "configs" / "kdep_r18.py"))
  assert (config.batch_size, config.steps) == (512, 22500)
  assert config.data.per_class == 128 and config.losses.feature == 3.0
  rate = Optim(**config.optim.to_dict()).rate(config.steps)
  rates = [float(rate(step)) for step in (0, 7499, 7500, 15000, 22499)]
  np.testing.assert_allclose(rates, [0.3, 0.3, 0.03, 0.003, 0.003], rtol=1e-5)
  views = images.preprocess(config.preprocess.to_dict())
  assert (views.train_interpolation, views.crop_pct) == ("bilinear", 0.875)
  whole = config_lib.load(str(ROOT / "configs" / "kdep_mnv2.py:100pct_9"))
  assert whole.data.per_class == 0 and whole.optim.lr == 0.1
  assert whole.steps == 9 * 1_281_167 // 512


@pytest.mark.parametrize(
  "name", ["kdep_r18", pytest.param("kdep_mnv2", marks=pytest.mark.slow)]
)
def test_smoke_runs_to_an_exported_student(name, tmp_path):
  spec = f"{ROOT}/configs/{name}.py:smoke"
  assert main.main(["--config", spec, "--workdir", str(tmp_path)]) == 0
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  losses = [line["loss/feature"] for line in found if "loss/feature" in line]
  assert len(losses) == 4 and losses[0] != losses[3]
  assert found[-1]["eval/feature_error"] > 0 and 0 <= found[-1]["eval/knn"] <= 1
  saved = json.loads((tmp_path / "student" / "config.json").read_text())
  model, variables = load_pretrained(
    saved["architecture"], tmp_path / "student"
  )
  taps = model.apply(
    variables, np.ones((1, 32, 32, 3), np.float32), train=False
  )
  assert np.isfinite(taps["pooled"]).all() and np.ptp(taps["pooled"]) > 0
  assert (tmp_path / "report.html").stat().st_size > 10_000
