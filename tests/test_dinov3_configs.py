"""DINOv3 teaches the students of phones, on a folder of images."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import runs
from configs import common_dinov3
from kd_jax import config as config_lib
from kd_jax import convert, main, models

PAIRS = (("kdep", "_fastvit"), ("scalekd", "_repvit"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Tiles, as docs/own.md cuts them; fewer."""
  folder = tmp_path_factory.mktemp("photos")
  photo = load_sample_image("china.jpg")
  for k in range(24):
    top, left = 64 * (k // 6), 96 * (k % 6)
    tile = photo[top : top + 160, left : left + 160]
    Image.fromarray(tile).save(folder / f"{k}.jpg", quality=92)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(("method", "variant"), PAIRS)
def test_a_folder_trains_an_exported_student(method, variant, photos, tmp_path):
  spec = f"{runs.ROOT}/configs/{method}_dinov3.py:smoke{variant}"
  data = ("--config.data.name=folder", f"--config.data.dir={photos}")
  assert main.main(["--config", spec, "--workdir", str(tmp_path), *data]) == 0
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  totals = [
    x["loss/total"] for x in map(json.loads, lines) if "loss/total" in x
  ]
  assert len(totals) == 4 and np.isfinite(totals).all()
  assert totals[0] != totals[3]
  name = common_dinov3.STUDENTS[variant.removeprefix("_")][0]
  model, variables = convert.load_pretrained(name, tmp_path / "student")
  images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
  taps = model.apply(variables, images, train=False)
  assert np.ptp(taps["pooled"], 0).max() > 0


@pytest.mark.parametrize("kind", common_dinov3.STUDENTS)
def test_taps_and_weights_of_the_whole_pair(kind):
  path = f"{runs.ROOT}/configs/scalekd_dinov3.py"
  config = config_lib.load(f"{path}:{kind}" if kind else path)
  assert config.data.name == "folder"
  teacher = models.create_model(config.teacher.name, img_size=224)
  student = models.create_model(config.student.name)
  assert config.method.student[1] == common_dinov3.STUDENTS[kind][1]
  assert hasattr(student, "fused") == (kind != "")
  assert all(teacher.embed_dim % n == 0 for n in config.method.heads)
  # As much as Swin's 49 positions have together.
  assert config.losses.proxy * 196 == pytest.approx(0.08 * 49)
  assert config.losses.final_alt * 196 == pytest.approx(0.06 * 49)
