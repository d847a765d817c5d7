"""Transfers that cannot work end in one line, before they train if possible."""

import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import runs
from kd_jax import main

PHOTO = load_sample_image("flower.jpg")
PAIRS = ("data.name=pairs", "transfer.shots=0", "batch_size=4", "steps=2")


@pytest.fixture(autouse=True)
def settings(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("KD_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def refused(capsys, where, variant, *fields):
  """The one line that a run ends with."""
  argv = runs.arguments(where, *fields, variant=variant, config=runs.TRANSFER)
  assert main.main(argv) == 1
  said = capsys.readouterr().err
  assert "Traceback" not in said, said
  (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
  assert said.rstrip().endswith(line)
  return line


BOTH = [
  ("init_from=/nosuch/run", "no file or directory '/nosuch/run'"),
  ("transfer.trains=all", "transfer.trains is 'all'.*'head'"),
  ("transfer.seeds=()", "transfer.seeds is .*at least one"),
  ("transfer.shot=1", r"no field config.transfer.shot;"),
  ("optim.lr=0.0", "optim.lr is 0; .* Set --config.optim.lr"),
  ("eval.batch_size=0", "eval.batch_size is 0; "),
  ("eval.every=-1", "config.eval.every is -1"),
  ("steps=0", "steps=0 leaves no step"),
  ("losses.ce=0.0", r"loss term.*ce.*got \(\)"),
  ("data.split=trane", "trane.*train"),
  ("test.split=test[70:70]", r"test\[70:70\]"),
  ("student.name=resnet19", "no model 'resnet19'"),
  ("mix.mixup=-1.0", "mix"),
]


@pytest.mark.parametrize("variant", ["classify", "segment"])
@pytest.mark.parametrize(("field", "message"), BOTH)
def test_fields_of_both(variant, field, message, tmp_path, capsys):
  line = refused(capsys, tmp_path / "run", variant, field)
  assert re.search(message, line), line
  assert not (tmp_path / "run" / "trials").exists()


@pytest.mark.parametrize(
  ("field", "message"),
  [
    ("data.labels=False", "config.data has no labels; a classifier needs"),
    ("test.labels=False", "config.test has no labels; a classifier needs"),
    ("test.classes=(1,2)", r"config.data has 10 classes and config.test 2; "),
    ("data.split=train[:7]", r"3 of 10 classes have no .*\['7', '8', '9'\]"),
    ("batch_size=41", r"batch_size is 41, and a run has 40 labelled.*size=40"),
    ("transfer.shots=17", "transfer.shots=17, .* than 10 classes have"),
    ("student.overrides.num_classes=9", "num_classes is 9, .* have 10 classes"),
    ("transfer.evals=('svm',)", "evals has no 'svm'.*'knn'"),
    ("transfer.evals=('top1',)", "'top1', which judges a classifier"),
    ("losses.aux=1.0", "no field config.losses.aux"),
    ("preprocess.augment=full", "preprocess.augment='full'"),
  ],
)
def test_classification(field, message, tmp_path, capsys):
  line = refused(capsys, tmp_path / "run", "classify", field)
  assert re.search(message, line), line
  assert not (tmp_path / "run" / "trials").exists()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (("data.labels=False",), "config.data has no masks; .*name=pairs"),
    (("test.labels=False",), "config.test has no masks; .*name=pairs"),
    (("test.classes=(3,8,9)",), "config.data have 3 classes and .*test 4"),
    (("test.classes=(3,9)",), "have 3 classes .* 3, or other names"),
    (("batch_size=17",), "batch_size is 17, and a run has 16 labelled images"),
    (("transfer.shots=25",), "transfer.shots=25 is more than the 24"),
    (("head.name=lite",), r"head has no 'lite'; it has .*'light'"),
    (("head.name=psp", "head.channels=0"), "head.channels is 0"),
    (("head.channels=abc",), "'abc' is no int"),
    (("mix.mixup=0.2",), "mix.mixup is 0.2; masks are not mixed. Set"),
    (("mix.smoothing=0.1",), "mix.smoothing is 0.1; masks are not mixed"),
    (("transfer.evals=('knn',)",), r"transfer.evals is \('knn',\); .*evals=()"),
    (("losses.aux=0.4",), "losses.aux is 0.4, .* no auxiliary head. Set"),
    (("aux.name=fcn",), "aux.name is 'fcn', .* losses.aux is 0. Set"),
    (("preprocess.augment=shift",), "preprocess.augment='shift'; for segmen"),
  ],
)
def test_segmentation(fields, message, tmp_path, capsys):
  line = refused(capsys, tmp_path / "run", "segment", *fields)
  assert re.search(message, line), line
  assert not (tmp_path / "run" / "trials").exists()


def test_rates_need_images_to_be_chosen_by(tmp_path, capsys):
  fields = ("transfer.rates=(0.1,0.2)", "data.split=train[:10]")
  more = ("transfer.shots=0", "batch_size=2")
  line = refused(capsys, tmp_path / "run", "classify", *fields, *more)
  assert "class '0' has 1. Lower --config.transfer.holdout" in line


def test_weights_of_another_network(tmp_path, capsys):
  other = runs.save_teacher(tmp_path / "other", channels=(4, 8, 16, 24))
  line = refused(capsys, tmp_path / "run", "segment", f"init_from={other}")
  assert "the tensors do not fit the model" in line
  fields = (f"init_from={other}", "student.name=resnet34")
  line = refused(capsys, tmp_path / "run", "classify", *fields)
  assert "says 'resnet18', not 'resnet34'" in line


@pytest.fixture
def pairs(tmp_path):
  """Eight crops with masks of two classes, and the fields that name them."""
  for i in range(8):
    rows, columns = slice(20 * i, 20 * i + 16), slice(30 * i, 30 * i + 16)
    write(tmp_path / f"set/images/{i}.png", PHOTO[rows, columns])
    mask = (PHOTO[rows, columns, 0] > 90).astype(np.uint8)
    mask[:2] = 255
    write(tmp_path / f"set/masks/{i}.png", mask)
  return tmp_path / "set"


def write(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  image.save(path)


def run_pairs(place, where, *more):
  """Arguments of a run on a folder of pairs."""
  fields = {"name": "pairs", "dir": str(place), "classes": 2}
  path = where.with_suffix(".py")
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "from tests.configs.transfer import get_config as base\n"
    "def get_config(variant=''):\n"
    "  config = base('segment')\n"
    "  with config.unlocked():\n"
    f"    config.data = ConfigDict({fields!r})\n"
    f"    config.test = ConfigDict({fields!r})\n"
    "    config.update({'steps': 2, 'batch_size': 8})\n"
    "    config.transfer.shots = 0\n"
    "    config.checkpoint.every = 0\n"
    "  return config\n"
  )
  return runs.arguments(where, *more, config=path)


def refused_pairs(capsys, place, where, *more):
  assert main.main(run_pairs(place, where, *more)) == 1
  said = capsys.readouterr().err
  assert "Traceback" not in said, said
  (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
  assert said.rstrip().endswith(line)
  return line


@pytest.mark.slow
@pytest.mark.parametrize(
  ("pixels", "message"),
  [
    (np.zeros((9, 16), np.uint8), "5.png.*mask has 9x16 pixels, the image 16x"),
    (np.zeros((16, 16, 3), np.uint8), "masks/5.png: its pixels are RGB, not"),
    (np.full((16, 16), 7, np.uint8), "masks/5.png holds 7; classes are 0..1"),
  ],
)
def test_masks_that_cannot_be_used(pixels, message, pairs, tmp_path, capsys):
  write(pairs / "masks" / "5.png", pixels)
  line = refused_pairs(capsys, pairs, tmp_path / "run")
  assert re.search(message, line), line


def test_the_first_mask_is_looked_at_before_step_0(pairs, tmp_path, capsys):
  write(pairs / "masks" / "0.png", np.zeros((16, 16, 3), np.uint8))
  line = refused_pairs(capsys, pairs, tmp_path / "run")
  assert re.search("masks/0.png: its pixels are RGB", line)
  assert not (tmp_path / "run" / "trials").exists()


def test_pairs_that_are_not_complete(pairs, tmp_path, capsys):
  (pairs / "masks" / "3.png").unlink()
  line = refused_pairs(capsys, pairs, tmp_path / "run")
  assert re.search(r"masks: no mask for the image '3' \(1 of 8", line), line
  for path in (pairs / "masks").iterdir():
    path.unlink()
  line = refused_pairs(capsys, pairs, tmp_path / "run")
  assert "error: " in line and "masks" in line
  line = refused_pairs(capsys, tmp_path / "none", tmp_path / "run")
  assert "there is no folder" in line


def test_a_test_set_of_other_classes(pairs, tmp_path, capsys):
  line = refused_pairs(capsys, pairs, tmp_path / "run", "test.classes=3")
  assert "config.data have 2 classes and those of config.test 3" in line


@pytest.mark.slow
def test_test_images_that_are_too_large_say_what_to_set(
  pairs, tmp_path, capsys
):
  write(pairs / "images" / "2.png", PHOTO[:30, :40])
  write(pairs / "masks" / "2.png", np.zeros((30, 40), np.uint8))
  line = refused_pairs(capsys, pairs, tmp_path / "run")
  assert "2.png" in line and "--config.preprocess.eval_size=(30, 40)" in line


@pytest.mark.slow
def test_masks_with_a_palette_are_read_by_index(pairs, tmp_path):
  for path in (pairs / "masks").iterdir():
    image = Image.fromarray(np.asarray(Image.open(path)), mode=None)
    image = image.convert("L")
    image.putpalette([200, 10, 10, 10, 200, 10] * 128)
    assert image.mode == "P"
    image.save(path)
  assert main.main(run_pairs(pairs, tmp_path / "run")) == 0
  assert (tmp_path / "run" / "results.json").exists()
