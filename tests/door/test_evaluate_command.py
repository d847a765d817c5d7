"""Figures of a frozen student on a folder of labelled images."""

import json
import shutil

import numpy as np
import pytest
from door_case import command
from PIL import Image
from sklearn import linear_model, pipeline, preprocessing

import kd_jax
from kd_jax.door.finished import labelled

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def sorted_images(tmp_path_factory):
  """Three colours, 15 noisy images of each."""
  root, rng = tmp_path_factory.mktemp("sorted"), np.random.default_rng(0)
  for i, name in enumerate(CLASSES):
    (root / name).mkdir()
    for k in range(15):
      pixels = rng.integers(0, 160, (40, 48, 3))
      pixels[..., 2 - i] += 60
      path = root / name / f"{k:02}.png"
      Image.fromarray(pixels.astype(np.uint8)).save(path)
  return root


@pytest.fixture(scope="module")
def found(sorted_images, finished, tmp_path_factory):
  run = tmp_path_factory.mktemp("judged") / "run"
  shutil.copytree(finished[0], run)
  return run, kd_jax.evaluate(sorted_images, run, teacher=True)


def test_figures_are_those_of_the_features(found, sorted_images):
  run, worth = found
  assert (worth.train_images, worth.test_images) == (36, 9)
  names, features = kd_jax.embed(sorted_images, run)
  split = labelled.split(str(sorted_images), "", 0, 0)
  tested = set(split.test.ids())
  assert len(tested) == 9 and not tested & set(split.train.ids())
  rows = np.array([name in tested for name in names])
  label = np.array([name.split("/")[0] for name in names])
  model = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(max_iter=1000),
  ).fit(features[~rows], label[~rows])
  score = model.score(features[rows], label[rows])
  assert worth.figures["student"]["probe"] == [score]
  assert score > 2 / 3  # mean colours survive any network


def test_all_networks_and_what_nobody_has_to_learn(found):
  run, worth = found
  assert list(worth.figures) == ["student", "teacher", "untrained student"]
  assert worth.guess == pytest.approx(1 / 3)
  results = json.loads((run / "evaluate" / "results.json").read_text())
  assert results["figures"] == worth.figures
  assert results["classes"] == [*CLASSES]
  page = (run / "evaluate" / "report.html").read_text()
  assert "untrained student" in page and "36 to learn from" in page


def test_few_labels_are_drawn_several_times(sorted_images, finished, tmp_path):
  broken = tmp_path / "images"
  shutil.copytree(sorted_images, broken)
  (broken / "red" / "99.png").write_bytes(b"no image")
  argv = ("--per-class", 3, "--protocol", "knn", "--out", tmp_path / "o")
  status, said = command("evaluate", broken, "--model", finished[0], *argv)
  assert status == 0, said
  results = json.loads((tmp_path / "o" / "results.json").read_text())
  assert len(results["figures"]["student"]["knn"]) == 5
  assert results["left_out"] == 1 and "probe" not in results["figures"]
  again = kd_jax.evaluate(
    broken, finished[0], tmp_path / "o", protocols=["knn"], per_class=3
  )
  assert again.figures == results["figures"]


def test_a_folder_of_its_own_for_test(sorted_images, finished, capsys):
  argv = ("--val", sorted_images, "--protocol", "knn")
  export = finished[0] / "export" / "timm"
  status, _ = command("evaluate", sorted_images, "--model", export, *argv)
  assert status == 0 and not (export / "evaluate").exists()
  said = capsys.readouterr().out
  assert "45 to learn from; 45 for test\n" in said
  assert "most frequent class  33.3 %" in said
