"""The race: who takes part, how runs are shared, and what the table says."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks import _race_figures, _race_many, _race_table, _racers, race
from kd_jax.build import training


def figures(folder, name, budget, seed, steps, **values):
  path = folder / "figures" / f"{name}-{budget}-{seed}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({"steps": steps, **values}))


@pytest.mark.parametrize("data", [*_racers.COURSES])
def test_all_racers_have_one_recipe(data):
  racers, course = _racers.racers(), _racers.COURSES[data]
  assert len(racers) >= 12 and next(iter(racers)) == "kdep"
  assert {"scalekd", "fkd", "stagewise"} <= set(racers)
  recipes = []
  for racer in racers.values():
    config = _racers.contest(racer, course, 40, seed=3)
    method = training.method(config)
    assert not method.reads_labels and set(method.terms) == {
      term for term, weight in racer.losses.items() if weight
    }
    recipes.append((config.optim.to_dict(), config.data, config.batch_size))
    assert (config.seed, config.steps) == (3, 40)
    reads = not method.needs_networks and method.phases()[0].needs.student
    width = config.student.overrides.num_classes
    assert width == (5 if reads and "logits" in reads else 0)
  assert all(each == recipes[0] for each in recipes)


def test_two_teachers_teach_all_racers_alike():
  racers, recipes = _race_many.racers(), []
  assert {"unic", "theia", "radio"} < set(racers)
  for name, racer in racers.items():
    config = race.config_of(pathlib.Path(_race_many.NAME), name, 40, 3)
    method = training.method(config)
    assert not method.reads_labels and set(method.methods) == (
      {""} if name == "joint_svd" else {"low", "high"}
    )
    assert len(method.terms) == len(method.methods) * len(racer.losses)
    dropped = method.balancer.needs_images
    assert dropped == (name == "unic")
    recipes.append((config.optim.to_dict(), config.data, config.batch_size))
    assert (config.seed, config.steps) == (3, 40)
  assert all(each == recipes[0] for each in recipes)
  one = race.config_of(pathlib.Path("digits"), "kdep", 40, 3)
  assert one.optim.to_dict() == recipes[0][0]


def test_the_table_compares_seed_by_seed(tmp_path):
  for seed, (base, other) in enumerate([(0.5, 0.6), (0.7, 0.72)]):
    for budget in _race_table.BUDGETS:
      kdep = {"kNN": base, "25 labels": 0.5}
      figures(tmp_path / "digits", "kdep", budget, seed, 9, **kdep)
      theirs = {"kNN": other, "25 labels": 0.25}
      figures(tmp_path / "digits", "sp", budget, seed, 8, **theirs)
  # One seed of two, and one that KDEP has not.
  figures(tmp_path / "digits", "pkt", "steps", 1, 9, kNN=0.1)
  figures(tmp_path / "digits", "pkt", "steps", 7, 9, kNN=0.9)
  cost = {"operations": 6.4e8, "images": 64, "seconds": 0.02, "memory": 3e6}
  path = tmp_path / "digits" / "costs" / "sp.json"
  path.parent.mkdir()
  path.write_text(json.dumps(cost))
  text = _race_table.write(tmp_path)
  assert text == (tmp_path / "race.md").read_text()
  line = "| SP | 66.0 (+6.0 ± 4.0) | 25.0 (-25.0 ± 0.0) |"
  assert text.count(line) == 1  # the same at equal steps
  assert text.count("| PKT | 10.0 (-60.0 ± ?) |  |") == 1
  assert "| SP | 10.0 | 20.0 | 3.0 | 8 |" in text
  assert "two teachers" not in text
  for name, knn in (("joint_svd", 0.8), ("unic", 0.9)):
    figures(tmp_path / "teachers", name, "operations", 0, 9, kNN=knn)
  text = _race_table.write(tmp_path)
  small = text.partition("two teachers, equal operations")[2]
  assert "| UNIC | 90.0 (+10.0 ± ?) |" in small and "SP" not in small
  assert (tmp_path / "pictures" / "race.png").stat().st_size > 10_000
  found = _race_table.figures(tmp_path, "steps")
  given = _race_table.compared(found, "")  # of the seed that all have
  assert given.difference("SP", "digits, kNN").mean == pytest.approx(0.02)
  assert given.difference("PKT", "digits, kNN").mean == pytest.approx(-0.6)


def test_what_costs_more_takes_fewer_steps(tmp_path, monkeypatch):
  costs = {"kdep": 100.0, "sp": 101.0, "crd": 300.0}
  monkeypatch.setattr(race, "_cost", lambda n, *_: {"operations": costs[n]})
  seen = []

  def pretend(config, judge):
    del judge
    seen.append((config.method.name, config.steps))
    return {"kNN": 0.5}

  monkeypatch.setattr(race, "_figures", pretend)
  folder = tmp_path / "digits"
  for name in costs:
    race._race(30, folder, name, 0, None)
  assert seen == [("kdep", 30), ("sp", 30), ("crd", 30), ("crd", 10)]
  race._race(30, folder, "crd", 0, None)  # all there
  assert len(seen) == 4
  kept = [
    path.stem for path in (folder / "figures").glob("*-operations-0.json")
  ]
  assert sorted(kept) == [f"{n}-operations-0" for n in sorted(costs)]
  # Runs that are shared count once.
  assert "processor time of 4 runs: " in _race_table.write(tmp_path)


def test_masks_are_told_apart_by_a_linear_classifier():
  rng = np.random.default_rng(0)
  label = np.repeat([0, 0, 0, 1, 2], 40)
  x = rng.normal(size=(200, 6)) + 3 * np.eye(6)[label]
  weights = _race_figures._ridge(x, label)
  said = (_race_figures._with_one(x) @ weights).argmax(1)
  assert (said == label).mean() > 0.9
  # Every class weighs the same: the balance of a class of 120 and one of 40.
  mean = _race_figures._with_one(x) @ weights
  by_class = np.stack([mean[label == c].mean(0) for c in range(3)])
  assert np.all(by_class.argmax(1) == np.arange(3))


@pytest.mark.slow
def test_the_race_runs(tmp_path):
  race.main(
    ["--out", str(tmp_path), "--smoke", "--seeds", "1", "--steps", "4"]
    + ["--only", "scenes", "--racers", "kdep"]
  )
  text = (tmp_path / "race.md").read_text()
  assert "scenes, masks" in text and "| KDEP | " in text
