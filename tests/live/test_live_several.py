"""Several teachers, one of which runs in PyTorch."""

import json

import numpy as np
import pytest

import runs
from kd_jax import main

CONFIG = runs.ROOT / "tests" / "configs" / "teachers.py"
# A stem that timm can build.
STEM = {"stem_width": 64, "stem_type": ""}
WIDTHS = {"a": (64, 8, 16, 24), "b": (64, 8, 8, 16)}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  """{source of the first teacher: what its run logged}."""
  folder = tmp_path_factory.mktemp("several")
  fields = ["preprocess.image_size=32", "teachers.b.preprocess.image_size=40"]
  fields += ["steps=4", "log_every=1", "eval.limit=32"]
  for name, channels in WIDTHS.items():
    place = runs.save_teacher(folder / name, channels=channels, **STEM)
    each = {"weights": place, "overrides.channels": channels}
    each |= {f"overrides.{k}": v for k, v in STEM.items()}
    fields += [f"teachers.{name}.{k}={v}" for k, v in each.items()]
  found = {}
  for source in ("online", "timm"):
    mine = (*fields, f"teachers.a.source={source}")
    args = runs.arguments(folder / source, *mine, config=CONFIG)
    assert main.main(args) == 0
    lines = (folder / source / "metrics.jsonl").read_text().splitlines()
    found[source] = [json.loads(line) for line in lines]
  return found


def test_a_teacher_in_pytorch_teaches_beside_another(told):
  losses = ("loss/a/feature", "loss/b/feature")
  steps = [line for line in told["online"] if losses[0] in line]
  assert len(steps) == 4 and all(
    line[k] > 0.01 for line in steps for k in losses
  )
  again = [line for line in told["timm"] if losses[0] in line]
  for ours, theirs in zip(again, steps, strict=True):
    for name in losses:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)
