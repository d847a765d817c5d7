"""A detector as a program that needs nothing of ours."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import runs
from kd_jax import main, models, trees
from kd_jax.convert import pickles
from kd_jax.transfer.detection import detector, files, program

CANVAS = (48, 64)
FIELDS = {
  "name": "c4",
  "num_classes": 3,
  "masks": True,
  "pre_nms": (40, 40),
  "post_nms": (12, 12),
  "detections": 6,
  "score": 0.01,
  "sizes": (16, 32),
  "mask_convs": 0,
  "mask_channels": 8,
}
CALL = """
import sys
import numpy as np
from jax import export
model = export.deserialize(open(sys.argv[1], "rb").read())
given = np.load(sys.argv[2])
np.savez(sys.argv[3], **model.call(given["images"], given["sizes"]))
assert not [name for name in sys.modules if "kd_jax" in name or "flax" in name]
"""


@pytest.fixture(scope="module")
def network():
  net = models.create_model(
    "resnet18", num_classes=0, channels=(8, 8, 8, 8), layers=(1, 1, 1, 1)
  )
  model = detector.build(net, FIELDS)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), np.zeros((1, *CANVAS, 3), np.float32)
  )
  rng = np.random.default_rng(0)

  def draw(leaf):
    if leaf.ndim == 1:
      return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
    scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return np.float32(scale * rng.normal(size=leaf.shape))

  flat = trees.flatten(shapes)
  return model, trees.unflatten({k: draw(v) for k, v in flat.items()})


@pytest.fixture
def folder(network, tmp_path):
  model, variables = network
  about = {"name": "resnet18", "classes": ["a", "b", "c"], "canvas": CANVAS}
  files.save(model, variables, tmp_path / "run", **about)
  return tmp_path / "run"


def exported(capsys, *fields):
  flags = [f"--config.{field}" for field in fields]
  status = main.main(["--config", str(runs.ROOT / "configs/export.py"), *flags])
  return status, capsys.readouterr().err


@pytest.mark.slow
def test_the_same_detections_in_a_fresh_process(
  network, folder, tmp_path, capsys
):
  status, said = exported(capsys, f"workdir={folder}")
  assert status == 0 and f"detector on resnet18 of {folder}" in said
  out = folder / "export"
  about = json.loads((out / "detector.json").read_text())
  assert about == {"classes": ["a", "b", "c"], "canvas": [48, 64]}
  text = (out / "README.md").read_text()
  assert "(n, 48, 64, 3)" in text and 'found["masks"]' in text
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (3, *CANVAS, 3), dtype=np.uint8)
  sizes = np.array([[48, 64], [40, 50], [48, 30]], np.int32)
  np.savez(tmp_path / "given.npz", images=images, sizes=sizes)
  paths = [str(tmp_path / name) for name in ("given.npz", "found.npz")]
  command = [sys.executable, "-c", CALL, str(out / "stablehlo/model.bin")]
  alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  process = subprocess.Popen([*command, *paths], cwd=tmp_path, env=alone)
  model, variables = network
  taps = jax.jit(lambda x, s: model.apply(variables, x, size=s))(
    np.float32(images) / 255, sizes
  )
  assert process.wait(timeout=120) == 0
  with np.load(tmp_path / "found.npz") as file:
    found = dict(file)
  assert set(found) == set(program.OUTPUTS)
  assert (found["scores"] > 0).sum(1).min() > 0
  np.testing.assert_array_equal(found["classes"], taps["classes"])
  for name in ("boxes", "scores", "masks"):
    assert np.ptp(found[name]) > 0
    np.testing.assert_allclose(found[name], taps[name], rtol=1e-4, atol=1e-4)


def test_its_backbone_for_other_detectors(network, folder, tmp_path, capsys):
  fields = (f"workdir={folder}", f"output={tmp_path / 'out'}")
  status, said = exported(capsys, *fields, "format=detectron2", "form=fpn")
  assert status == 0 and f"resnet18 for detectron2 of {folder}" in said
  assert [path.name for path in (tmp_path / "out").iterdir()] == ["detectron2"]
  found = pickles.read(tmp_path / "out/detectron2/model.pkl")["model"]
  wanted = network[1]["params"]["backbone"]["stage2"]["block0"]["conv1"]
  name = "backbone.bottom_up.res3.0.conv1.weight"
  kernel = wanted["kernel"].transpose(3, 2, 0, 1)
  np.testing.assert_array_equal(found[name], kernel)
  text = (tmp_path / "out/detectron2/README.md").read_text()
  assert "STRIDE_IN_1X1: False" in text and "[123.675, 116.28" in text
  status, said = exported(capsys, *fields, "format=torchvision", "form=c5")
  assert status == 1 and "has no form 'c5'; --config.form is one" in said


def test_mistakes(folder, capsys):
  status, said = exported(capsys, f"workdir={folder}", "canvas=(48,)")
  assert status == 1 and "config.canvas is (48,); it is the height" in said
  (folder / "heads" / "config.json").write_text('{"student": "resnet18"}')
  status, said = exported(capsys, f"workdir={folder}")
  assert status == 1 and "holds no detector" in said
