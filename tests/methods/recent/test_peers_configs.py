"""The configs of others' methods: all load, and some run."""

import json
import pathlib
import shutil

import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import main, resolve
from kd_jax.build import training

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "peers.py"
METHODS = [
  "attention_transfer",
  "crd",
  "dinov3",
  "dist",
  "dkd",
  "fitnets",
  "kdep_dense",
  "lightly_both",
  "lightly_dense",
  "lightly_global",
  "nst",
  "pkt",
  "proteus",
  "radio",
  "reviewkd",
  "rkd",
  "simkd",
  "sp",
  "theia",
  "tinymim",
  "unic",
]
# A second run, several bases: what only some of them have.
RUN = ["proteus", "kdep_dense"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_variant(name):
  assert name in resolve.names("methods", "Method")
  config = config_lib.load(f"{CONFIG}:{name}")
  method = training.method(config)
  assert set(method.terms) == set(method.OWN) and not method.reads_labels
  assert config.method.name == name and config.optim.name == "adamw"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_smoke_runs(name, tmp_path):
  spec = f"{CONFIG}:smoke_{name}"
  assert main.main(["--config", spec, "--workdir", str(tmp_path)]) == 0
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  losses = [line["loss/total"] for line in found if "loss/total" in line]
  assert len(losses) == 4 and len(set(losses)) == 4
  assert np.isfinite(losses).all()


@pytest.mark.slow
def test_a_run_goes_on_with_its_queue(tmp_path):
  """From the checkpoint in the middle, to the very bits of the whole run."""
  whole, again = tmp_path / "whole", tmp_path / "again"
  config = f"{CONFIG}:smoke_lightly_both"
  runs.here(whole, config=config)
  shutil.copytree(whole, again)
  shutil.rmtree(again / "checkpoints" / "4")
  runs.here(again, config=config)
  want, got = runs.state(whole, 4), runs.state(again, 4)
  queues = [k for k in want if "queue" in k]
  assert len(queues) == 1
  before = runs.state(whole, 2)
  for key, value in want.items():
    np.testing.assert_array_equal(got[key], value, err_msg=key)
    assert key not in queues or np.any(value != before[key])
