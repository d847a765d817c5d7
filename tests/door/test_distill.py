"""From a folder and a teacher to a student, by one command."""

import json
import re

import jax
import numpy as np
import pytest
from door_case import STUDENT, distil

import kd_jax
from kd_jax import config as config_lib
from kd_jax import main
from kd_jax.report import metrics


def test_the_student_can_be_loaded(finished):
  out, _ = finished
  model, variables = kd_jax.load_pretrained(STUDENT, out / "student")
  image = np.full((1, 32, 32, 3), 0.5, np.float32)
  pooled = np.asarray(model.apply(variables, image, train=False)["pooled"])
  assert pooled.shape == (1, model.num_features) and pooled.std() > 0
  exported, again = kd_jax.load_pretrained(STUDENT, out / "export" / "timm")
  assert exported.input_size == (3, 32, 32)
  same = np.asarray(exported.apply(again, image, train=False)["pooled"])
  np.testing.assert_array_equal(same, pooled)
  assert (out / "report.html").is_file()


def test_every_choice_is_said_with_its_reason(finished):
  out, said = finished
  for line in (
    r"images: 40 colour images, shorter side 60 px \(median\)",
    r"machine: CPU with \d+ cores",
    r"teacher: resnet18 \(as .*teacher",
    r"views: 32 px, crops of 25 % or more",
    r"optimizer: SGD, for BatchNorm; rate 0.00234",
    r"batch: 4; by estimate it needs [\d.]+ GB",
    r"steps: 3, 0.3 passes .*as asked for; a full run takes 900",
    rf"config: {out}/config.py",
    rf"kd-jax embed .* --model {out}",
  ):
    assert re.search(f"^{line}|: {line}", said, re.MULTILINE), line


def test_the_teacher_is_the_saved_one(finished):
  out, _ = finished
  about = json.loads((out / "summary.json").read_text())
  assert about["teacher_width"] == 24  # a usual ResNet-18 has 512
  assert about["epochs"] == 0.3


def test_the_written_config_runs_again(finished):
  out, _ = finished
  config = config_lib.load(str(out / "config.py"))
  assert config.to_dict()["steps"] == 3
  before = metrics.read(out)
  flags = ["--config", str(out / "config.py"), "--workdir", str(out)]
  assert main.main(flags) == 0
  assert metrics.read(out) == before  # it was finished


@pytest.mark.slow
def test_the_same_command_goes_on_and_another_is_refused(
  finished, images, teacher
):
  out, _ = finished
  before = (out / "config.py").read_text()
  status, said = distil(images, teacher, out, "--seed", "1")
  assert status == 1
  assert re.search(r"error: .* another machine; 'python -m kd_jax.main", said)
  assert (out / "config.py").read_text() == before
  status, said = distil(images, teacher, out)
  assert status == 0 and "continuing after step 3" in said


@pytest.mark.slow
def test_another_method_ends_with_a_student(images, tmp_path):
  method, teacher = "stagewise", "resnet10t"
  untrained = ("--teacher-weights", "random", "--steps", "12")
  size = ("--image-size", "64")
  status, said = distil(
    images, teacher, tmp_path / "run", *untrained, *size, "--method", method
  )
  assert status == 0 and f"method: {method}, student: {STUDENT}" in said
  _, learnt = kd_jax.load_pretrained(STUDENT, tmp_path / "run/student")
  _, exported = kd_jax.load_pretrained(STUDENT, tmp_path / "run/export/timm")
  jax.tree.map(np.testing.assert_array_equal, learnt, exported)
