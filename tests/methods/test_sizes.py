"""Phases at several image sizes."""

import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

import runs
from kd_jax import config as config_lib
from kd_jax.build import experiment
from kd_jax.methods import kdep, kdep_dense, sizes
from kd_jax.train import phases

PLAN = ((0.5, 32), (0.25, 48), (0.25, 32))
CONFIG = runs.ROOT / "configs" / "kdep_sizes.py"


@pytest.mark.parametrize("method", [kdep, kdep_dense])
def test_a_phase_per_size_and_one_optimizer(method):
  found = method.Method(sizes=PLAN).phases()
  assert [x.data for x in found] == [(("image_size", s),) for _, s in PLAN]
  assert [x.steps_frac for x in found] == [0.5, 0.25, 0.25]
  assert [x.fresh_opt for x in found] == [True, False, False]
  spans = phases.stretches(method.Method(sizes=PLAN), 8)
  assert [(s.start, s.stop) for s in spans] == [(0, 4), (4, 6), (6, 8)]
  (one,) = method.Method().phases()
  assert one.data == () and sizes.of(found) == (32, 48)


@pytest.mark.parametrize(
  ("plan", "message"),
  [
    (((0.5, 32),), "the shares of the steps must sum to 1, not 0.5"),
    ((1.0, 32), "it holds pairs of a share"),
    (((1.0, 32.5),), "it holds pairs of a share"),
    (((-1.0, 32), (2.0, 48)), "it holds pairs of a share"),
  ],
)
def test_plans_that_are_refused(plan, message):
  with pytest.raises(ValueError, match=message):
    kdep.Method(sizes=plan)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"sizes": ((0.5, 32), (0.5, 44))}, "method.sizes has 44 pixels: patches"),
    ({"head": "attention", "heads": 2}, "parameters that are made for maps"),
  ],
)
def test_sizes_that_do_not_fit_end_before_step_0(changes, message, tmp_path):
  config = config_lib.load(f"{CONFIG}:smoke")
  with config.unlocked():
    config.method.update(changes)
  with pytest.raises(ValueError, match=message):
    experiment.experiment(config, tmp_path)


def test_crops_of_the_step_have_one_size(tmp_path):
  config = config_lib.load(f"{CONFIG}:smoke")
  with config.unlocked():
    config.preprocess = ConfigDict({**config.preprocess, "canvas": 64})
  with pytest.raises(ValueError, match="set --config.preprocess.canvas=0"):
    experiment.experiment(config, tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_at_the_second_size(tmp_path):
  fields = ("checkpoint.keep=9",)
  runs.here(tmp_path, *fields, config=CONFIG, variant="smoke")
  quiet = runs.state(tmp_path, 4)
  words = (tmp_path / "pictures" / "sizes.txt").read_text()
  assert "student's patches at 32: " in words and " at 48." in words
  for step in (3, 4):  # as if it had been killed between the sizes
    shutil.rmtree(tmp_path / "checkpoints" / str(step))
  shutil.rmtree(tmp_path / "student")
  said = runs.here(tmp_path, *fields, config=CONFIG, variant="smoke")
  assert "continuing after step 2" in said
  for name, array in runs.state(tmp_path, 4).items():
    np.testing.assert_array_equal(array, quiet[name], err_msg=name)
