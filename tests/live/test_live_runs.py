"""Runs with PyTorch in them: timm as teacher, timm as reader, bad pickles."""

import json
import os
import re

import jax
import numpy as np
import pytest
import timm
import timm_pair
import torch
from safetensors import numpy as safetensors_numpy

import runs
from kd_jax import convert, main
from kd_jax.teachers import online
from kd_jax.teachers import timm as timm_teacher
from kd_jax.types import Batch

# What both, timm and we, can build.
PLAIN = {"layers": (1, 1, 1, 1), "channels": (64, 8, 16, 24)}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4}


def stored(folder, name, **fields):
  model = timm_pair.timm_model(name, **fields)
  path = folder / "model.safetensors"
  safetensors_numpy.save_file(timm_pair.arrays(model), path)
  return str(path)


@pytest.mark.parametrize(
  ("name", "fields", "tokens"),
  [
    ("resnet18", PLAIN, False),
    ("mobilenetv2_050", {}, False),
    ("regnety_002", {}, False),
    ("convnext_atto", {}, False),
    ("vit_tiny_patch16_224", {**VIT, "num_heads": 2}, True),
  ],
)
def test_the_same_taps_as_our_port(name, fields, tokens, tmp_path):
  path = stored(tmp_path, name, num_classes=7, **fields)
  overrides = {"num_classes": 7, **fields}
  source, variables = timm_teacher.load(
    name, path, {"dtype": "bfloat16", **overrides}
  )
  peer, weights = online.load(name, path, overrides)
  image = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
  batch = Batch(image, np.zeros(3, np.int32), np.ones(3, np.float32))
  assert variables == {} and source.model.input_size == (3, 224, 224)
  found = jax.jit(lambda b: dict(source({}, b).taps))(batch)
  want = jax.jit(lambda b: dict(peer({"teacher": weights}, b).taps))(batch)
  stages = {f"stage{k}" for k in (1, 2, 3, 4)}
  assert stages | {"feature", "pooled", "logits"} <= set(found)
  for tap in set(found) - (stages if tokens else set()):
    assert np.ptp(want[tap]) > 0
    gap = np.abs(found[tap] - want[tap]).max()
    assert gap < 1e-4 * np.abs(want[tap]).max(), tap


def counted(source, part, calls):
  """Notes every run of one part of the network."""
  run = getattr(source.network, part)
  return lambda images: (calls.append(part), run(images))[1]


def test_only_what_is_read_is_run(tmp_path, monkeypatch):
  path = stored(tmp_path, "resnet18", num_classes=0, **PLAIN)
  source, _ = timm_teacher.load("resnet18", path, {"num_classes": 0, **PLAIN})
  image = np.ones((2, 32, 32, 3), np.float32)
  batch = Batch(image, np.zeros(2, np.int32), np.ones(2, np.float32))
  source({}, batch)  # asks for the shapes
  calls = []
  for part in ("vectors", "maps"):
    monkeypatch.setattr(source.network, part, counted(source, part, calls))
  jax.block_until_ready(jax.jit(lambda b: source({}, b).taps["pooled"])(batch))
  assert calls == ["vectors"]


def test_mistakes(tmp_path):
  path = stored(tmp_path, "resnet18", num_classes=7, **PLAIN)
  load = timm_teacher.load
  with pytest.raises(ValueError, match="do not fit the teacher: .*num_classes"):
    load("resnet18", path, PLAIN)
  with pytest.raises(ValueError, match="timm cannot make 'resnet18' with"):
    load("resnet18", path, {"wdth": 2})
  with pytest.raises(ValueError, match="no model 'resnet19'; near it are"):
    load("resnet19", path, {})
  path = stored(tmp_path, "vit_tiny_patch16_224")
  source, _ = load("vit_tiny_patch16_224", path, {})
  image = np.ones((1, 32, 32, 3), np.float32)
  with pytest.raises(ValueError, match="not run on images of 32 x 32 .*img_si"):
    source({}, Batch(image, np.zeros(1, np.int32), np.ones(1, np.float32)))


def test_without_a_network(monkeypatch):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  with pytest.raises(ValueError, match="config.teacher.weights to a file"):
    timm_teacher.load("resnet18.a1_in1k", "pretrained", {})


SHARED = (
  "teacher.overrides.stem_width=64",
  "teacher.overrides.stem_type=",
  "teacher.overrides.channels=(64,8,16,24)",
  "student.overrides.stem_width=64",
  "student.overrides.stem_type=",
  "student.overrides.channels=(64,8,8,12)",
  "preprocess.image_size=32",
  "eval.limit=32",
  "steps=3",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Two KDEP runs with the same teacher, here and in PyTorch."""
  folder = tmp_path_factory.mktemp("runs")
  weights = stored(folder, "resnet18", num_classes=0, **PLAIN)
  for source in ("online", "timm"):
    fields = (f"teacher.weights={weights}", f"teacher.source={source}")
    assert main.main(runs.arguments(folder / source, *fields, *SHARED)) == 0
  return folder


def test_kdep_from_a_timm_teacher_is_the_same_run(finished):
  found, want = (
    [
      json.loads(line)
      for line in (finished / source / "metrics.jsonl").read_text().splitlines()
    ]
    for source in ("timm", "online")
  )
  assert want[-1]["eval/feature_error"] > 0
  for mine, other in zip(found, want, strict=True):
    for key, near in (("loss/feature", 1e-4), ("eval/feature_error", 1e-2)):
      if key in other:
        np.testing.assert_allclose(mine[key], other[key], rtol=near)
  about = json.loads((finished / "timm" / "summary.json").read_text())
  assert about["teacher"] == "resnet18" and about["teacher_width"] == 24


def test_timm_loads_the_exported_student(finished, monkeypatch):
  run = finished / "timm"
  config = str(runs.ROOT / "configs" / "export.py")
  assert main.main(["--config", config, f"--config.workdir={run}"]) == 0
  folder = run / "export"
  model, variables = convert.load_pretrained("resnet18", folder / "flax")
  x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  want = np.asarray(model.apply(variables, x)["pooled"])
  normal = (x - np.float32(model.mean)) / np.float32(model.std)
  card = (folder / "README.md").read_text()
  line = re.search(r"model = (timm\.create_model\(.*\))", card)[1]
  monkeypatch.chdir(folder)
  readers = (
    eval(line, {"timm": timm}),
    timm.create_model("local-dir:timm", pretrained=True),
  )
  for reader in readers:
    with torch.no_grad():
      got = reader.eval()(timm_pair.nchw(normal)).numpy()
    assert np.ptp(want) > 0
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  assert readers[1].pretrained_cfg["input_size"] == [3, 32, 32]


class Trap:
  """Would make a directory if it were unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def test_pickles_that_run_code_are_refused(tmp_path):
  trap = tmp_path / "sprung"
  path = tmp_path / "model.pth"
  torch.save({"conv1.weight": torch.ones(1), "x": Trap(str(trap))}, path)
  with pytest.raises(ValueError, match="holds more than tensors"):
    convert.read_checkpoint(path)
  with pytest.raises(ValueError, match="holds more than tensors"):
    timm_teacher.load("resnet18", str(path), {})
  assert not trap.exists()
