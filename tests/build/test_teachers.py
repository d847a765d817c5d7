"""Several teachers in one run."""

import shutil

import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import main
from kd_jax.align import basis
from kd_jax.build.teachers import joined
from kd_jax.report import metrics
from tests.configs import teachers as case

CONFIG = runs.ROOT / "tests" / "configs" / "teachers.py"


def load(variant="", **fields):
  config = config_lib.load(f"{CONFIG}:{variant}")
  with config.unlocked():
    for field, value in fields.items():
      config[field] = value
  return config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """{teacher: --config argument}."""
  root = tmp_path_factory.mktemp("weights")
  found = {}
  for name, channels in case.CHANNELS.items():
    runs.save_teacher(root / name, channels=channels)
    found[name] = f"teachers.{name}.weights={root / name}"
  return found


def refused(capsys, where, *fields):
  assert main.main(runs.arguments(where, *fields, config=CONFIG)) == 1
  said = capsys.readouterr().err
  assert "Traceback" not in said and said.count("error: ") == 1
  return said


def test_weights_of_terms_are_multiplied_by_those_of_teachers():
  config = load()
  config.teachers.b.weight = 0.5
  config.losses["b/feature"] = 3.0
  assert joined.weights(config.to_dict()) == {
    "a/feature": 1.0,
    "b/feature": 1.5,
  }


def test_methods_differ_by_teacher():
  config = load()
  with config.unlocked():
    config.teachers.b.method = {"align": {"name": "linear"}}
    config.losses["feature"] = 1.0
  method = joined.method(config.to_dict())
  aligners = {n: m.aligner.needs_basis for n, m in method.methods.items()}
  assert aligners == {"": True, "a": True, "b": False}
  assert method.artifact_taps == ("a/feature", "feature")
  (phase,) = method.phases()
  assert phase.needs.teacher == ("a/feature", "b/feature", "feature")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.teachers.update({"A-b": {}}), r"the names \['A-b'\]"),
    (lambda c: c.teachers.update({"student": {}}), r"names \['student'\], wh"),
    (lambda c: c.teachers.b.update(weight=0.0), "teachers.b.weight is 0.0"),
    (lambda c: c.teachers.b.update(nosuch=1), "teachers.b has no field"),
    (lambda c: c.losses.update({"c/feature": 1.0}), r"terms of \['c'\]"),
    (lambda c: c.losses.update({"b/feature": 0.0}), r"\['b'\] have no loss"),
  ],
)
def test_entries_that_do_not_fit_are_refused(change, message):
  config = load()
  with config.unlocked():
    change(config)
  with pytest.raises(ValueError, match=message):
    joined.method(config.to_dict())


def test_mistakes_are_one_line(capsys, tmp_path, weights):
  said = refused(capsys, tmp_path / "1", weights["a"])
  assert "teacher 'b'" in said and "--config.teachers.b.weights" in said
  field = "teachers.b.preprocess.image_size=0"
  assert "image_size=0" in refused(capsys, tmp_path / "2", field)


@pytest.mark.slow
def test_a_size_that_no_patch_divides_is_one_line(capsys, tmp_path):
  config = runs.ROOT / "configs" / "teachers_three.py"
  field = "teachers.dinov3.preprocess.image_size=50"
  found = runs.arguments(tmp_path, field, config=config, variant="smoke")
  assert main.main(found) == 1
  said = capsys.readouterr().err
  assert said.count("error: ") == 1 and "Traceback" not in said
  assert "teacher 'dinov3': patches of 16 x 16" in said and field[:-3] in said


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["joint_smoke"])
def test_three_teachers_on_one_page(variant, tmp_path):
  config = runs.ROOT / "configs" / "teachers_three.py"
  runs.here(tmp_path, config=config, variant=variant)
  drawn = {path.stem for path in (tmp_path / "pictures").glob("map_of_*.png")}
  assert drawn == {
    f"map_of_{name}" for name in ("convnext", "dinov3", "siglip", "student")
  }
  terms = {k for line in metrics.read(tmp_path) for k in line}
  joint = variant.startswith("joint")
  assert ("loss/feature" in terms) == joint != ("loss/siglip/feature" in terms)


@pytest.mark.slow
def test_two_teachers_teach_and_one_is_todays_single_one(tmp_path, weights):
  plain = ("steps=3", "checkpoint.every=3", "batch_size=16")
  runs.here(tmp_path / "both", *plain, *weights.values(), config=CONFIG)
  both = runs.state(tmp_path / "both", 3)
  one = (*plain, weights["a"])
  runs.here(tmp_path / "one", *one, variant="one", config=CONFIG)
  single = (*plain, weights["a"].replace("teachers.a", "teacher"))
  runs.here(tmp_path / "single", *single, variant="single", config=CONFIG)
  mine, other = (runs.state(tmp_path / n, 3) for n in ("one", "single"))
  assert set(mine) == set(other)
  for name, array in other.items():
    np.testing.assert_array_equal(mine[name], array, err_msg=name)
  assert any(not np.array_equal(both[k], mine[k]) for k in mine)
  files = {path.name for path in (tmp_path / "both").glob("artifact*")}
  assert files == {"artifact_a_feature.npz", "artifact_b_feature.npz"}
  # The task fits the same ones, of all teachers, for runs to share.
  alone = (*plain, *weights.values(), "task=fit_svd")
  runs.here(tmp_path / "fit", *alone, config=CONFIG)
  for file in files:
    ours, theirs = (basis.load(tmp_path / n / file) for n in ("fit", "both"))
    np.testing.assert_array_equal(ours.basis, theirs.basis)
    assert ours.fingerprint == theirs.fingerprint


@pytest.mark.slow
def test_a_run_that_drops_teachers_goes_on_to_the_same_bits(tmp_path, weights):
  whole, again = tmp_path / "whole", tmp_path / "again"
  fields = ("steps=4", "checkpoint.every=2", "batch_size=16")
  given = (*fields, *weights.values())
  runs.here(whole, *given, config=CONFIG, variant="unic")
  shutil.copytree(whole, again)
  shutil.rmtree(again / "checkpoints" / "4")
  runs.here(again, *given, config=CONFIG, variant="unic")
  want, got = runs.state(whole, 4), runs.state(again, 4)
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, err_msg=name)
  heads = [name for name in want if "patches" in name]
  before = runs.state(whole, 2)
  assert heads and all(np.any(want[k] != before[k]) for k in heads)
  files = {path.stem for path in whole.glob("artifact*")}
  taps = ("pooled", "stage4")
  assert files == {f"artifact_{n}_{tap}" for n in "ab" for tap in taps}
