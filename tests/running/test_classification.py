"""Classifications from their plan to their results, on a few digits."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import load_pretrained, trees
from kd_jax.build import classify as build
from kd_jax.data.chosen import Chosen
from kd_jax.data.sources import digits
from kd_jax.report import metrics
from kd_jax.running import classify, results, training
from kd_jax.train import step as step_lib
from kd_jax.transfer.plan import Trial

TEST = digits.Source("test[:70]")


def planned(where, *fields):
  spec = f"{runs.TRANSFER}:classify"
  config = config_lib.load(spec, list(fields))
  return build.plan(config, where)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
  """(plan, folder, results, traces of the step) of a search with evals."""
  where = tmp_path_factory.mktemp("searched")
  plan = planned(
    where,
    *("transfer.rates=(0.01,0.05)", "transfer.seeds=(0,1)", "dtype=float32"),
    *("transfer.evals=('knn','probe')", "optim.head_lr=2.0"),
  )
  traced, whole = [], step_lib.Objective.gradients

  def gradients(self, *args):
    traced.append(self)
    return whole(self, *args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(step_lib.Objective, "gradients", gradients)
    found = classify.conclude(plan, where)
  return plan, where, found, len(traced)


def names(where):
  return sorted(path.name for path in (where / "trials").iterdir())


def student(folder):
  return load_pretrained("resnet18", folder / "student")


def leaves(variables):
  return {k: np.asarray(v) for k, v in trees.flatten(variables).items()}


def of_trial(where, name):
  return json.loads((where / "trials" / name / "result.json").read_text())


def test_four_runs_share_one_compiled_step(searched):
  plan, where, _, traces = searched
  assert [name.partition("_lr")[0] for name in names(where)] == [
    *("final", "final", "search", "search"),
  ]
  step = plan.experiment.programs["step from 0"]
  assert traces == 1 and step._cache_size() == 1
  assert plan.judge._count._cache_size() == 1


def test_results_are_those_of_the_runs(searched):
  plan, where, found, _ = searched
  assert json.loads((where / results.FILE).read_text()) == found
  search = {
    rate: of_trial(where, f"search_lr{rate}_seed2")["figures"]["top1"]
    for rate in ("0.01", "0.05")
  }
  assert found["search"] == search
  best = max(search.values())
  assert found["rate"] == min(float(r) for r, v in search.items() if v == best)
  finals = [
    of_trial(where, f"final_lr{found['rate']:g}_seed{seed}")["figures"]
    for seed in (0, 1)
  ]
  for name in ("top1", "top5", "mean_per_class"):
    assert found["figures"][name] == [run[name] for run in finals]
  assert (found["train_images"], found["test_images"]) == (160, 70)
  assert found["held_out_images"] == 40 and found["seeds"] == [0, 1]
  assert (found["figure"], found["start"]) == ("top1", "nothing")
  assert not found["best_test"] and found["shots"] == 4
  assert {*found["evals"]} == {"knn", "probe"}
  for values in found["evals"].values():
    assert len(values) == 2 and all(0 < value <= 1 for value in values)
  _, rows = results.rows_of(found)
  assert [row[0] for row in rows] == [
    *("fine-tuned network", "knn of the features", "probe of the features"),
  ]
  assert "held-out" in rows[0][-1]
  results.show(found, where, "Digits")
  assert "knn of the features" in (where / "report.html").read_text()


def test_searches_are_judged_by_held_out_images_only(searched):
  plan, *_ = searched
  trial = Trial(0.05, 2, search=True)
  held, learned = plan.parts.held_out(), plan.images(trial)
  assert isinstance(learned, Chosen) and len(learned) == 40
  assert not {*held.rows.tolist()} & {*learned.rows.tolist()}


def test_the_exported_student_is_what_was_judged(searched):
  plan, where, found, _ = searched
  folder = where / "trials" / f"final_lr{found['rate']:g}_seed1"
  model, variables = student(folder)
  assert model.num_classes == 10
  again = plan.judge.figures(jax.tree.map(np.asarray, variables), TEST)
  for name, value in again.items():
    assert value == found["figures"][name][1], name
  said = json.loads((folder / "student" / "config.json").read_text())
  assert said["num_classes"] == 10
  assert not (folder / "checkpoints").exists()
  for name in ("classes", "confusion"):
    assert list(folder.rglob(f"{name}.*")), name


@pytest.mark.slow
def test_the_same_command_finds_everything_done(searched, monkeypatch):
  plan, where, found, _ = searched
  monkeypatch.setattr(
    "kd_jax.running.training.fit", lambda *_: pytest.fail("trained again")
  )
  assert classify.conclude(plan, where) == found


def test_a_damaged_result_is_named(searched):
  plan, where, *_ = searched
  path = where / "trials" / "search_lr0.01_seed2" / "result.json"
  text = path.read_text()
  path.write_text(text[:40])
  try:
    with pytest.raises(ValueError, match="result.json is damaged.*delete it"):
      classify.conclude(plan, where)
  finally:
    path.write_text(text)


def test_a_linear_probe_leaves_the_backbone_bit_for_bit(searched, tmp_path):
  _, where, found, _ = searched
  source = where / "trials" / f"final_lr{found['rate']:g}_seed0" / "student"
  probe = ("transfer.trains=head", "optim.lr=0.5", f"init_from={source}")
  done = classify.conclude(planned(tmp_path, *probe), tmp_path)
  assert done["trains"] == "head" and done["start"] == str(source)
  folder = tmp_path / "trials" / "final_lr0.5_seed0"
  given, kept = (
    leaves(load_pretrained("resnet18", f)[1])
    for f in (source, folder / "student")
  )
  assert set(given) == set(kept) and len(given) > 60
  for path, array in given.items():
    if path.startswith("params/head/"):
      assert not np.array_equal(kept[path], array), path
    else:
      np.testing.assert_array_equal(kept[path], array, err_msg=path)
  assert results.rows_of(done)[1][0][0] == "head on frozen features"


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
  """(plan, folder, results) with a moving average, mixup and other groups."""
  where = tmp_path_factory.mktemp("averaged")
  plan = planned(
    where,
    *("transfer.select=best_test", "eval.every=2", "ema_decay=0.8"),
    *("mix.mixup=0.2", "mix.smoothing=0.1", "optim.layer_decay=0.8"),
    *("transfer.rates=(0.02,0.2)", "optim.name=sgd", "steps=8"),
  )
  return plan, where, classify.conclude(plan, where)


@pytest.mark.slow
def test_the_papers_protocol_takes_the_best_evaluation(averaged):
  _, where, found = averaged
  assert names(where) == ["final_lr0.02_seed0", "final_lr0.2_seed0"]
  best = {}
  for rate in (0.02, 0.2):
    folder = where / "trials" / f"final_lr{rate:g}_seed0"
    lines = [x for x in metrics.read(folder) if "eval/top1" in x]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    best[rate] = max(lines, key=lambda x: x["eval/top1"])
    told = of_trial(where, folder.name)
    assert told["best"]["top1"] == best[rate]["eval/top1"]
    assert told["figures"]["top1"] == lines[-1]["eval/top1"]
  tops = {rate: line["eval/top1"] for rate, line in best.items()}
  assert found["rate"] == min(r for r in tops if tops[r] == max(tops.values()))
  for name, values in found["figures"].items():
    assert values == [best[found["rate"]][f"eval/{name}"]]
  assert found["best_test"] and found["search"] == {}
  assert found["held_out_images"] == 0
  assert "paper's protocol" in results.rows_of(found)[1][0][-1]


@pytest.mark.slow
def test_the_moving_average_is_judged_and_exported(averaged):
  plan, where, found = averaged
  folder = where / "trials" / f"final_lr{found['rate']:g}_seed0"
  told = of_trial(where, folder.name)["figures"]
  given = []
  trial = Trial(found["rate"], 0)
  again = plan.of(trial)
  judge = functools.partial(_kept, given, again.evaluate)
  again = dataclasses.replace(again, evaluate=judge)
  training.fit(again, where / "again")
  state = given[-1]
  _, variables = student(folder)
  for path, array in leaves(variables["params"]).items():
    average = np.asarray(trees.flatten(state["ema"])[f"student/{path}"])
    np.testing.assert_array_equal(array, average, err_msg=path)
    raw = np.asarray(trees.flatten(state["params"])[f"student/{path}"])
    assert not np.array_equal(array, raw), path
  assert plan.judge.figures(variables, TEST) == told


def _kept(given, evaluate, state, frozen):
  kept = {"ema": state.ema, "params": state.params}
  given.append(jax.tree.map(np.array, kept))
  return evaluate(state, frozen)


def test_percent():
  assert results.percent([0.5, 0.7]) == "60.0 ± 10.0 %"
  assert results.percent([0.25]) == "25.0 ± ? %"
