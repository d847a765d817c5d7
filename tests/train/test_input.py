"""Real runs whose input is messy, multiplied, mixed or cut on the device."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import runs
from kd_jax import main
from kd_jax.data.sources import folder

CROP = (
  "preprocess.augment=crop",
  "preprocess.shift=0",
  "data.name=folder",
  "batch_size=8",
  "steps=4",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  return runs.save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def brief(monkeypatch):
  """Dry runs measure how fast they read for moments instead of seconds."""
  monkeypatch.setattr("kd_jax.report.run.throughput._SECONDS", 0.1)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
  """Tiles of the two photographs, in a folder per photograph."""
  root = tmp_path_factory.mktemp("tiles")
  for name in ("china", "flower"):
    photo = load_sample_image(f"{name}.jpg")
    (root / name).mkdir()
    for i in range(12):
      top, left = 100 * (i // 4), 150 * (i % 4)
      tile = Image.fromarray(photo[top : top + 100, left : left + 150])
      tile.save(root / name / f"{i:02}.jpg", quality=92)
  return root


def run(workdir, teacher, *fields, variant=""):
  fields = (f"teacher.weights={teacher}", *fields)
  assert main.main(runs.arguments(workdir, *fields, variant=variant)) == 0
  path = workdir / "metrics.jsonl"
  return [json.loads(line) for line in path.read_text().splitlines()]


def losses(lines):
  return [line["loss/feature"] for line in lines if "loss/feature" in line]


def test_bad_files_are_skipped_and_listed(teacher, tiles, tmp_path, capsys):
  spoilt = tmp_path / "images"
  for path in sorted(tiles.rglob("*.jpg")):
    copy = spoilt / path.relative_to(tiles)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(path.read_bytes())
  bad = [spoilt / "china" / "03.jpg", spoilt / "flower" / "07.jpg"]
  bad[0].write_bytes(b"no image")
  bad[1].write_bytes(bad[1].read_bytes()[:-300])
  fields = (*CROP, f"data.dir={spoilt}")
  arguments = [f"teacher.weights={teacher}", *fields]
  assert main.main(runs.arguments(tmp_path / "a", *arguments)) == 1
  last = capsys.readouterr().err.splitlines()[-1]
  assert any(str(path) in last for path in bad)
  found = run(tmp_path / "b", teacher, *fields, "data.skip_corrupt=True")
  assert len(losses(found)) == 4 and np.isfinite(losses(found)).all()
  listed = (tmp_path / "b" / "skipped.txt").read_text().splitlines()
  assert sorted(listed) == [str(path) for path in bad]


@pytest.mark.slow
def test_a_draw_is_listed_and_repeated(teacher, tiles, tmp_path):
  fields = (*CROP, f"data.dir={tiles}", "data.percent=75.0", "steps=2")
  first = run(tmp_path / "a", teacher, *fields)
  listed = (tmp_path / "a" / "records.txt").read_text().splitlines()
  assert listed == list(folder.Source(str(tiles), percent=75.0).ids())
  assert len(listed) == 18 and all((tiles / name).exists() for name in listed)
  assert losses(run(tmp_path / "b", teacher, *fields)) == losses(first)


@pytest.mark.slow
def test_crops_on_the_device_are_those_of_the_host(teacher, tiles, tmp_path):
  fields = (
    *CROP,
    f"data.dir={tiles}",
    "preprocess.train_interpolation=bilinear",
    "preprocess.num_crops=2",
    "optim.lr=0.0001",
  )
  host = losses(run(tmp_path / "host", teacher, *fields))
  device = losses(
    run(tmp_path / "device", teacher, *fields, "preprocess.canvas=160")
  )
  np.testing.assert_allclose(device, host, rtol=1e-2)
  assert len(set(host)) == 4


MIX = ("mix.mixup=0.8", "mix.cutmix=1.0", "steps=6")


@pytest.mark.slow
def test_mixing_without_labels(teacher, tmp_path):
  plain = losses(run(tmp_path / "plain", teacher, "steps=6"))
  mixed = losses(run(tmp_path / "mixed", teacher, *MIX))
  assert len(mixed) == 6 and np.isfinite(mixed).all() and mixed != plain


@pytest.mark.slow
def test_mixing_with_labels(tmp_path):
  found = run(
    tmp_path / "labels",
    "",
    *MIX,
    "mix.smoothing=0.1",
    "eval.evals=()",
    variant="labels",
  )
  values = [line["loss/ce"] for line in found if "loss/ce" in line]
  assert len(values) == 6 and np.isfinite(values).all()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (("preprocess.num_crops=3",), "batch_size is 32; with 3 crops of an image"),
    (("mix.mixup=0.5", "batch_size=33"), "mixing pairs of images"),
    (("mix.mixup=-1.0",), "mix.mixup is -1.0; it must be at least 0"),
    (("input.workers=-1",), "config.input.workers is -1"),
    (("preprocess.crop_mode=border",), "preprocess.crop_mode='border'"),
    (("preprocess.interpolation=area",), "preprocess.interpolation='area'"),
  ],
)
def test_refused(fields, message, teacher, tmp_path, capsys):
  fields = (f"teacher.weights={teacher}", *fields)
  assert main.main(runs.arguments(tmp_path, *fields)) == 1
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_dry_run_says_what_will_bound_the_run(
  teacher, tmp_path, capsys, brief
):
  fields = (f"teacher.weights={teacher}", "dry_run=True")
  assert main.main(runs.arguments(tmp_path, *fields)) == 0
  said = capsys.readouterr().err
  assert "views/s" in said and "will bound this run" in said
  assert not (tmp_path / "metrics.jsonl").exists()
  assert not (tmp_path / "artifact.npz").exists()


def test_checkpoint_s_own_view_is_used(tmp_path, capsys, brief):
  teacher = runs.save_teacher(
    tmp_path / "t",
    interpolation="bicubic",
    crop_pct=0.5,
    crop_mode="squash",
  )
  fields = ("preprocess.crop_pct=0.0", "dry_run=True")
  fields = (f"teacher.weights={teacher}", *fields)
  assert main.main(runs.arguments(tmp_path / "r", *fields)) == 0
  assert "bicubic, 16 -> 8, squashed" in capsys.readouterr().err
