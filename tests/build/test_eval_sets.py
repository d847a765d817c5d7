"""Metrics of a classifier need labels of its classes."""

import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.build import evaluation, images
from kd_jax.report import metrics
from kd_jax.tasks import pretrain

LOW, HIGH = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
OWN = {"name": "digits", "split": "test", "classes": LOW}


def tiny(evals=("knn",), judge=None):
  """Digits 0 to 4 are learned, 5 to 9 evaluated."""
  config = config_lib.load(f"{runs.CONFIG}:labels", ["steps=4"])
  with config.unlocked():
    config.data.classes = LOW
    config.student.overrides.num_classes = len(LOW)
    config.eval.train.classes = config.eval.test.classes = HIGH
    config.eval.evals = evals
    config.eval.judge = judge or {"name": ""}
  return config


def open_sets(config, outputs, *, judged):
  data = images.source(config.data.to_dict())
  fields = config.eval.to_dict()
  return evaluation.open_sets(fields, data, outputs, judged=judged)


def test_labels_of_other_digits_are_not_compared():
  sets = open_sets(tiny(), 5, judged=False)
  assert sets.judge == sets.test and not sets.labels
  sets = open_sets(tiny(judge=OWN), 5, judged=False)
  assert sets.judge.class_names == tuple("01234") and sets.labels
  assert sets.test.class_names == tuple("56789")


def test_without_evals_or_a_judge_it_is_the_training_data():
  for judged in (False, True):
    sets = open_sets(tiny(evals=()), 5, judged=judged)
    assert sets.judge.class_names == tuple("01234") and sets.labels
    assert sets.train == sets.test == sets.judge


def test_top1_of_other_digits_is_refused_before_step_0():
  config = tiny(evals=("knn", "top1"))
  with pytest.raises(ValueError, match=r"\['top1'\].*\(5: 5, 6, 7, \.\.\.\)"):
    open_sets(config, 5, judged=False)
  with config.unlocked():
    config.eval.test.classes = LOW
  open_sets(config, 5, judged=False)


def test_a_run_reports_the_accuracy_of_its_own_classes_only(tmp_path):
  for name, judge in {"others": None, "own": OWN}.items():
    pretrain.run(tiny(judge=judge), tmp_path / name)
  others, own = (
    set().union(*metrics.read(tmp_path / name)) for name in ("others", "own")
  )
  assert own - others == {"eval/accuracy"} and not others - own
  assert "eval/knn" in others
