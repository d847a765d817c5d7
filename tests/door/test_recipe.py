"""What follows from the images, the machine and the networks."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from PIL import Image

from kd_jax import config as config_lib
from kd_jax import models, resolve
from kd_jax.door import photos, recipe, teachers, written
from kd_jax.door.choice import Choice
from kd_jax.door.machine import Machine
from kd_jax.door.pair import Pair, taps
from kd_jax.door.photos import Photos

CPU = Machine("cpu", devices=1, cores=2, memory=8 * 10**9, cpu=True)
GPUS = Machine("H100", devices=4, cores=64, memory=80 * 10**9, cpu=False)
PHOTOS = Photos("/photos", 10_000, side=300, grey=False, unreadable=0, of=64)


def settings(student="resnet18", method="kdep", student_taps=(), teacher=None):
  pair = Pair(student, dict(student_taps), teacher, images=300)
  return resolve.symbol(recipe.RECIPES, method, recipe.SETTINGS)(pair)


def chosen(found=PHOTOS, machine=CPU, **changes):
  fields = {
    "teacher": teachers.Chosen("online", "resnet50", "/w", ""),
    "student": "resnet18",
    "method": "kdep",
    "settings": settings(changes.get("student", "resnet18")),
    "overrides": {},
    "batch_norm": True,
    "image_size": 112,
    "batch_size": 16,
    "accum_steps": 1,
    "steps": 100,
    "seed": 3,
  }
  return Choice(photos=found, machine=machine, **{**fields, **changes})


def test_budgets_are_those_of_kdep():
  # 90 passes over 128 images per class of ImageNet, in batches of 512.
  whole = dataclasses.replace(PHOTOS, count=128_000)
  assert chosen(whole, batch_size=512).budget == 22_500
  more = dataclasses.replace(PHOTOS, count=1_281_167)
  assert chosen(more, batch_size=512).budget == 22_500
  assert chosen(batch_size=512).budget == 90 * 10_000 // 512
  assert chosen(batch_size=512).lr == 0.3
  assert chosen(student="mobilenetv2_100", batch_size=256).lr == 0.05
  # Of the family of ResNet-18 and of another one, which the authors left out.
  assert chosen(student="seresnet50", batch_size=512).lr == 0.3
  assert chosen(student="regnety_016", batch_size=512).lr == 0.1


def test_the_machine_decides_on_types_and_batches():
  assert recipe._batch(0, PHOTOS, CPU) == 16
  assert recipe._batch(0, PHOTOS, GPUS) == 512
  few = dataclasses.replace(PHOTOS, count=100)
  assert recipe._batch(0, few, GPUS) == 16
  assert recipe._batch(0, few, dataclasses.replace(GPUS, devices=6)) % 6 == 0
  assert chosen().config().dtype == "float32"
  assert chosen(machine=GPUS).config().dtype == "bfloat16"


def test_networks_decide_on_the_size():
  resnet, mixer = (
    models.create_model(name, num_classes=0)
    for name in ("resnet10t", "mixer_s32_224")
  )
  assert recipe._size(PHOTOS, CPU, resnet, resnet) == 112
  assert recipe._size(PHOTOS, GPUS, resnet, None) == 224
  assert recipe._size(PHOTOS, CPU, resnet, mixer) == 224  # it takes no other
  small = dataclasses.replace(PHOTOS, side=32)
  assert recipe._size(small, GPUS, resnet, None) == 96
  assert recipe._changes(resnet, 112) == {}
  vit = models.create_model("vit_tiny_patch16_224", num_classes=0)
  assert recipe._changes(vit, 112) == {"img_size": 112}
  assert recipe._changes(vit, 224) == {}


def test_images_decide_on_the_views():
  usual = chosen().config().preprocess
  assert (usual.scale, usual.lighting) == ((0.08, 1.0), 0.05)
  small = dataclasses.replace(PHOTOS, side=32, grey=True)
  views = chosen(small).config().preprocess
  assert views.scale == (0.25, 1.0) and views.lighting == 0
  assert views.color_jitter == (0.0, 0.0, 0.0)


def test_few_images_are_seen_more_than_once_for_the_directions():
  few = dataclasses.replace(PHOTOS, count=300)
  fit = chosen(few, GPUS, directions=512).config().fit
  assert fit.examples == 0 and fit.passes * few.count >= 2048
  fit = chosen(PHOTOS, GPUS, directions=512).config().fit
  assert (fit.examples, fit.passes) == (0, 1)
  fit = chosen(PHOTOS, CPU, directions=512).config().fit
  assert (fit.examples, fit.passes) == (1024, 1)


def test_transformers_are_trained_with_adamw():
  optim = chosen(batch_norm=False, batch_size=512).config().optim
  assert (optim.name, optim.lr, optim.warmup_frac) == ("adamw", 1e-3, 0.05)


@pytest.mark.parametrize(
  ("teacher", "fields", "resume", "heads", "sharpness"),
  [
    ("swin_large_patch4_window7_224", {}, "stage4", (12, 24), 5.0),
    ("eva_large_patch14_196", {"img_size": 196}, "block22", (16, 16), 0.2),
    ("convnext_atto", {}, "stage4", (2, 5), 5.0),
  ],
)
def test_scalekd_takes_the_last_blocks(
  teacher, fields, resume, heads, sharpness
):
  network = models.create_model(teacher, **fields)
  specs = taps(network, network.input_size[-1])
  found = settings(method="scalekd", teacher=specs)
  assert found.sections["method"]["resume"] == resume
  assert found.sections["method"]["heads"] == heads
  assert found.sections["method"]["sharpness"] == sharpness
  if teacher.startswith("swin_large"):  # the pair of the authors
    weights = {"proxy": 0.08, "final": 0.08, "proxy_alt": 0.06}
    assert found.sections["losses"] == {**weights, "final_alt": 0.06}
  config = chosen(settings=found, method="scalekd").config()
  assert config.method.name == "scalekd" and "feature" not in config.losses
  assert config.optim.lr == pytest.approx(0.2 * 16 / 512)


def test_scalekd_refuses_what_has_no_such_blocks():
  with pytest.raises(ValueError, match="a teacher in PyTorch does not offer"):
    settings(method="scalekd")
  specs = taps(models.create_model("resnet10t"), 64)
  with pytest.raises(ValueError, match="takes transformers and ConvNeXts"):
    settings(method="scalekd", teacher=specs)


def test_stagewise_has_no_phase_for_a_classifier():
  found = settings(method="stagewise")
  config = chosen(settings=found, method="stagewise").config()
  assert config.losses.ce == 0 and config.losses.stage4 == 1
  assert config.optim.schedule == "cosine" and config.optim.nesterov
  assert (config.fit.examples, config.fit.passes) == (0, 1)
  more = dataclasses.replace(PHOTOS, count=50_000)
  assert chosen(more, settings=found).budget == 100 * 50_000 // 16
  # 2 x 512 channels of stage 4, which has 2 x 2 positions in 300 images.
  specs = taps(models.create_model("resnet10t"), 64)
  assert settings(method="stagewise", teacher=specs).sections["fit"] == {
    "examples": 0,
    "passes": 1,
  }
  specs["stage4"] = jax.ShapeDtypeStruct((1, 1, 1, 512), np.float32)
  fit = settings(method="stagewise", teacher=specs).sections["fit"]
  assert fit["passes"] == 4


@pytest.mark.parametrize(
  ("memory", "accum", "said"),
  [(80, 1, "batch: 16;"), (5, 4, "batch: 16 in 4 microbatches; .* 3 GB of 5")],
)
def test_microbatches_fit_the_memory(memory, accum, said, monkeypatch):
  needs = {"student": 0.75, "teacher": 0.25, "activations": 8.0}
  monkeypatch.setattr(recipe.memory, "estimate", lambda _: dict(needs))
  machine = dataclasses.replace(CPU, memory=memory * 10**9)
  choice, line = recipe._accumulated(chosen(machine=machine), None)
  assert choice.accum_steps == accum
  assert re.match(said, line), line
  config = choice.config()
  assert config.accum_steps == accum
  assert config.eval.batch_size == 16 // accum


def test_a_first_try_has_time_for_the_fit(monkeypatch):
  for before, steps in ((0.0, 90), (1600.0, 50), (4000.0, 20)):  # GFLOPs
    monkeypatch.setattr(recipe, "_gflops", lambda *_, x=before: (x, 40.0))
    choice, line = recipe._steps(chosen(), None, 0)
    assert choice.steps == steps and "a first try on a CPU" in line
  assert recipe._steps(chosen(), None, 7)[0].steps == 7
  assert recipe._steps(chosen(machine=GPUS), None, 0)[0].steps == 56_250


def test_a_machine_that_is_hopeless_is_refused(monkeypatch):
  monkeypatch.setattr(recipe.memory, "estimate", lambda _: {"activations": 999})
  with pytest.raises(ValueError, match="needs 62 GB, and there are 8; lower"):
    recipe._accumulated(chosen(), None)


def test_a_machine_that_is_too_small_is_told(monkeypatch):
  needs = {"student": 9.0, "activations": 8.0}
  monkeypatch.setattr(recipe.memory, "estimate", lambda _: dict(needs))
  choice, line = recipe._accumulated(chosen(), None)
  assert choice.accum_steps == 16 and "may be too much: lower" in line


def test_the_written_config_is_the_same(tmp_path):
  config = chosen(overrides={"img_size": 112}).config()
  lines = ('images: "quoted" \\ {braces}', "steps: 7")
  path = written.keep(config.to_dict(), tmp_path / "run", lines)
  assert config_lib.load(str(path)).to_dict() == config.to_dict()
  assert config_lib.load(str(path), ["optim.lr=0.5"]).optim.lr == 0.5
  text = path.read_text()
  assert "- steps: 7\n" in text and f"--workdir {tmp_path / 'run'}\n" in text
  with pytest.raises(ValueError, match="no variant 'x'"):
    config_lib.load(f"{path}:x")


def test_a_look_at_images(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(9):
    pixels = rng.integers(0, 256, (40 + i, 90), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{i}.png")
  (tmp_path / "torn.jpg").write_bytes(b"torn")
  found = photos.look(str(tmp_path))
  assert (found.count, found.side, found.grey) == (10, 44, True)
  assert (found.unreadable, found.of) == (1, 10)
  assert "1 of the 10 that were looked at cannot be read" in str(found)
  Image.fromarray(rng.integers(0, 256, (50, 50, 3), np.uint8)).save(
    tmp_path / "colour.png"
  )
  assert not photos.look(str(tmp_path)).grey
