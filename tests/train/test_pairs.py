"""KDEP between families: every kind of teacher, every kind of student."""

import json

import numpy as np
import pytest

from kd_jax import main

SMOKE = "configs/kdep_r18.py:smoke"
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4}
VIT |= {"num_heads": 2}
NEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}


def fields(side, name, overrides):
  given = [f"{side}.overrides.{k}={v}" for k, v in overrides.items()]
  return [f"{side}.name={name}", *given]


@pytest.mark.slow
def test_kdep_trains_any_pair(tmp_path):
  arguments = [*fields("teacher", "vit_tiny_patch16_224", VIT)]
  arguments += fields("student", "convnext_atto", NEXT)
  arguments += ["student.overrides.num_classes=0", "steps=2", "eval.evals=()"]
  flags = [f"--config.{field}" for field in arguments]
  where = ["--workdir", str(tmp_path)]
  assert main.main(["--config", SMOKE, *where, *flags]) == 0
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  losses = [line["loss/feature"] for line in found if "loss/feature" in line]
  assert len(losses) == 2 and np.isfinite(losses).all()
  assert losses[0] != losses[1] > 0


def test_fsp_compares_maps_only(tmp_path, capsys):
  arguments = [*fields("teacher", "vit_tiny_patch16_224", VIT)]
  arguments += [*fields("student", "vit_tiny_patch16_224", VIT)]
  arguments += ["student.overrides.num_classes=0", "losses.fsp=1.0"]
  flags = [f"--config.{field}" for field in arguments]
  where = ["--workdir", str(tmp_path)]
  assert main.main(["--config", SMOKE, *where, *flags]) == 1
  last = capsys.readouterr().err.splitlines()[-1]
  assert "fsp term compares maps" in last
