"""The student of a run, alone, in three formats."""

import json
import re
import shutil
import sys

import jax
import numpy as np
import pytest
import zoo
from absl import logging
from jax import export as jax_export

import runs
from kd_jax import convert, main, models
from kd_jax.tasks import export

IMAGES = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)


def exported(capsys, *fields):
  flags = [f"--config.{field}" for field in fields]
  status = main.main(["--config", str(runs.ROOT / "configs/export.py"), *flags])
  return status, capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run with a moving average, and checkpoints of the steps 3 and 4."""
  folder = tmp_path_factory.mktemp("finished")
  teacher = runs.save_teacher(folder / "teacher")
  arguments = runs.arguments(
    folder / "run",
    f"teacher.weights={teacher}",
    "steps=4",
    "optim.name=adamw",
    "preprocess.crop_pct=0.5",
    "preprocess.crop_mode=squash",
    variant="ema",
  )
  assert main.main(arguments) == 0
  return folder / "run"


@pytest.fixture
def unfinished(finished, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(finished, run)
  shutil.rmtree(run / "student")
  return run


def averaged(run, step):
  """The student's moving average of a checkpoint, read without us."""
  prefix = "['ema']['student']"
  found = runs.state(run, step)
  return {
    path.removeprefix(prefix)[2:-2].replace("']['", "/"): value
    for path, value in found.items()
    if path.startswith(prefix)
  }


def params(folder):
  variables = convert.load_pretrained("resnet18", folder)[1]
  return convert.pretrained.trees.flatten(variables["params"])


def equal(found, wanted):
  assert set(found) == set(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(found[name], value)


def test_three_formats_of_a_finished_run(finished, tmp_path, capsys):
  out = tmp_path / "out"
  status, said = exported(capsys, f"workdir={finished}", f"output={out}")
  assert status == 0 and str(out) in said
  equal(params(out / "timm"), averaged(finished, 4))
  model, variables = convert.load_pretrained("resnet18", out / "flax")
  again, same = convert.load_pretrained("resnet18", out / "timm")
  assert model == again
  assert (model.crop_pct, model.crop_mode) == (0.5, "squash")
  assert model.input_size == (3, 8, 8) and model.interpolation == "bicubic"
  jax.tree.map(np.testing.assert_array_equal, variables, same)
  program = (out / "stablehlo" / "model.bin").read_bytes()
  call = jax_export.deserialize(program).call
  want = model.apply(variables, IMAGES)["pooled"]
  assert np.ptp(want) > 0
  for n in (1, 3):
    found = call(IMAGES[:n])
    assert set(found) == {"pooled"}
    np.testing.assert_allclose(found["pooled"], want[:n], rtol=1e-4, atol=1e-5)


def test_a_student_that_detectors_do_not_have(finished, tmp_path, capsys):
  fields = (f"workdir={finished}", f"output={tmp_path}", "format=detectron2")
  status, said = exported(capsys, *fields)
  assert status == 1 and not list(tmp_path.iterdir())
  assert "Detectron2 has no resnet with stem_type='cifar', only with ''" in said
  assert "Leave --config.format empty" in said and said.count("\n") == 1


def test_the_card_says_where_it_came_from(finished, tmp_path, capsys):
  exported(capsys, f"workdir={finished}", f"output={tmp_path}")
  text = (tmp_path / "README.md").read_text()
  assert "kdep: 1 feature" in text and "teacher: resnet18 (/" in text
  assert "4 of 32 images" in text and "bicubic, 16 -> 8" in text
  line = re.search(r'create_model\("resnet18", (.*)\)', text)[1]
  assert "num_classes=0" in line and "channels=[4, 8, 8, 12]" in line
  config = json.loads((tmp_path / "timm" / "config.json").read_text())
  assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]


def test_a_run_that_goes_on_is_only_read(
  unfinished, tmp_path, capsys, monkeypatch
):
  warned = []
  monkeypatch.setattr(
    logging, "warning", lambda text, *args: warned.append(text % args)
  )
  newest = unfinished / "checkpoints" / "4"
  before = sorted(unfinished.rglob("*"))
  fields = (f"workdir={unfinished}", f"output={tmp_path / 'a'}")
  status, said = exported(capsys, *fields)
  assert status == 0 and "weights of step 4" in said
  equal(params(tmp_path / "a" / "timm"), averaged(unfinished, 4))
  for path in newest.rglob("d/*"):
    path.write_bytes(path.read_bytes()[:-7])
  fields = (f"workdir={unfinished}", f"output={tmp_path / 'b'}")
  status, said = exported(capsys, *fields)
  assert status == 0 and "weights of step 3" in said
  assert "checkpoint 4 is damaged" in warned[0]
  assert sorted(unfinished.rglob("*")) == before
  equal(params(tmp_path / "b" / "timm"), averaged(unfinished, 3))
  shutil.rmtree(unfinished / "checkpoints" / "3")
  status, said = exported(capsys, f"workdir={unfinished}")
  line = said.splitlines()[-1]
  assert status == 1 and "none of the checkpoints [4]" in line


def test_mistakes(unfinished, tmp_path, capsys):
  def line(*fields):
    status, said = exported(capsys, *fields)
    assert status == 1 and said.count("\n") == 1, said
    return said

  assert "no run is named; set --config.workdir" in line()
  assert "is not the folder of a run" in line(f"workdir={tmp_path}/nosuch")
  shutil.rmtree(unfinished / "checkpoints")
  where = f"workdir={unfinished}"
  assert "has neither a student nor a checkpoint yet" in line(where)
  (unfinished / "summary.json").write_text("{}")
  assert "summary.json says nothing of a student" in line(where)
  (unfinished / "summary.json").write_text("{")
  assert "summary.json cannot be read" in line(where)


def test_a_folder_that_cannot_be_written(finished, tmp_path, capsys):
  (tmp_path / "file").touch()
  out = tmp_path / "file" / "out"
  status, said = exported(capsys, f"workdir={finished}", f"output={out}")
  assert status == 1 and f"the folder {out} cannot be written" in said


TRANSFORMER = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": 8}


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("vit_tiny_patch16_224", {**TRANSFORMER, "img_size": 32}),
    pytest.param("mobilenetv2_035", {}, marks=pytest.mark.slow),
  ],
)
def test_any_number_of_images_and_the_classifier(name, fields):
  model = models.create_model(name, num_classes=5, **fields)
  variables = zoo.drawn(model)
  images = np.random.default_rng(1).random((2, 32, 32, 3), np.float32)
  program = jax_export.deserialize(export.stablehlo(model, variables, 32))
  found = program.call(images)
  assert program.platforms == export.PLATFORMS
  want = jax.jit(model.apply)(variables, images)
  for tap in ("pooled", "logits"):
    assert np.ptp(want[tap]) > 0
    np.testing.assert_allclose(found[tap], want[tap], rtol=1e-3, atol=1e-4)


def test_a_merged_student(finished, tmp_path, capsys):
  run, out = tmp_path / "run", tmp_path / "out"
  shutil.copytree(finished, run)
  name, fields = "repvit_m0_9", {"embed_dim": (8,) * 4, "depth": (1,) * 4}
  tiny = zoo.Tiny(name, num_classes=0, **fields)
  shutil.rmtree(run / "student")
  convert.save_timm(tiny.model, tiny.variables, run / "student", name=name)
  recipe = json.loads((run / "config.json").read_text())
  recipe["student"]["name"] = name
  (run / "config.json").write_text(json.dumps(recipe))
  status, _ = exported(capsys, f"workdir={run}", f"output={out}", "fused=True")
  assert status == 0
  model, variables = convert.load_pretrained(name, out / "timm")
  assert model.fused and "batch_stats" not in variables
  assert "reparameterize_model" in (out / "README.md").read_text()
  images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
  want = tiny.model.clone(mean=model.mean, std=model.std).apply(
    tiny.variables, images
  )["pooled"]
  program = (out / "stablehlo" / "model.bin").read_bytes()
  for got in (
    model.apply(variables, images)["pooled"],
    jax_export.deserialize(program).call(images)["pooled"],
  ):
    near = 1e-5 * float(np.abs(want).max())
    np.testing.assert_allclose(got, want, rtol=0, atol=near)


def test_a_folded_program(finished, tmp_path, capsys):
  plain, folded = tmp_path / "plain", tmp_path / "folded"
  outputs = []
  for out, fused in ((plain, False), (folded, True)):
    fields = (f"workdir={finished}", f"output={out}", f"fused={fused}")
    assert exported(capsys, *fields)[0] == 0
    program = (out / "stablehlo" / "model.bin").read_bytes()
    outputs.append(jax_export.deserialize(program).call(IMAGES)["pooled"])
  equal(params(folded / "timm"), params(plain / "timm"))
  near = 1e-5 * float(np.abs(outputs[0]).max())
  np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=near)


def test_fused_is_for_our_formats(finished, tmp_path, capsys):
  fields = (f"workdir={finished}", f"output={tmp_path}", "fused=True")
  status, said = exported(capsys, *fields, "format=torchvision")
  assert status == 1 and "fused merges the student of a pre-training" in said


@pytest.mark.parametrize("fused", [False, True])
def test_onnx(fused, finished, tmp_path, capsys):
  runtime = pytest.importorskip("onnxruntime")
  fields = (f"workdir={finished}", f"output={tmp_path}", "format=onnx")
  status, said = exported(capsys, *fields, f"fused={fused}")
  assert status == 0 and "resnet18 for ONNX" in said
  assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
  text = (tmp_path / "onnx" / "README.md").read_text()
  assert "(n, 8, 8, 3)" in text and "It returns `pooled`." in text
  session = runtime.InferenceSession(tmp_path / "onnx" / "model.onnx")
  (found,) = session.run(["pooled"], {"images": IMAGES})
  model, variables = convert.load_pretrained("resnet18", finished / "student")
  want = np.asarray(model.apply(variables, IMAGES)["pooled"])
  near = 1e-4 * np.abs(want).max()
  np.testing.assert_allclose(found, want, rtol=0, atol=near)


def test_onnx_without_its_package(finished, tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnx", None)
  fields = (f"workdir={finished}", f"output={tmp_path}", "format=onnx")
  status, said = exported(capsys, *fields)
  assert status == 1 and 'pip install "kd_jax[onnx]"' in said
  assert said.strip().count("\n") == 0
