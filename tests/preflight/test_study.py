"""A preflight on this machine's own devices: everything but libtpu."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.build import abstract
from kd_jax.build.experiment import experiment
from kd_jax.preflight import compiling, lowering, study, topologies
from kd_jax.preflight.hosts import Reading
from kd_jax.report.run import throughput

PLACE = "topology=v5e:1x1"
TINY = (PLACE, "dry_run=True", "teacher.weights=timm/not_here")


@pytest.fixture(autouse=True)
def here(monkeypatch):
  """One CPU plays the chip."""
  monkeypatch.setattr(topologies, "devices", lambda _: jax.devices()[:1])
  reading = Reading(100.0, 50_000.0, "made up")
  monkeypatch.setattr(study.hosts, "measure", lambda *_: reading)


def planned(*fields, path=runs.CONFIG, variant="", folder="nowhere"):
  spec = f"{path}:{variant}" if variant else str(path)
  return abstract.planned(config_lib.load(spec, [*TINY, *fields]), folder)


def found(plan, price=0.0):
  return study.study(
    plan.experiment, plan.topology, price=price, assumed=plan.assumed
  )


@pytest.mark.parametrize("fields", [(), ("ema_decay=0.9", "accum_steps=2")])
def test_the_shapes_are_those_of_the_run(tmp_path, fields):
  """The lowered step takes what the run's step takes, leaf by leaf."""
  (shapes,) = lowering.steps_of(planned(*fields).experiment)
  real = experiment(
    config_lib.load(str(runs.CONFIG), [*fields, "teacher.source=random"]),
    tmp_path,
  )
  with real.inputs.batches() as stream:
    given = throughput.ready(real, real.stretches[0].phase, next(stream))[1:]
  kinds = lambda t: jax.tree.map(lambda x: (x.shape, str(x.dtype)), t)  # noqa: E731
  assert kinds(given) == kinds((shapes.state, shapes.frozen, shapes.batch))


def test_memory_is_what_jax_reports(tmp_path):
  (lowered,) = lowering.steps_of(planned().experiment)
  needs = lowered.traced.lower().compile().memory_analysis()
  step = compiling.step(lowered, topologies.find("v5e:1x1"))
  memory, parts = step.memory, dataclasses.asdict(step.memory)
  inputs = sum(
    parts[name]
    for name in ("student", "projectors", "optimizer", "kept", "teacher")
  )
  total = inputs + memory.batch + memory.padding
  assert total == needs.argument_size_in_bytes
  assert memory.temporaries == needs.temp_size_in_bytes > 0
  assert memory.total == step.needs and step.fits
  # Momentum is as large as the parameters; statistics have none.
  assert 0 < memory.optimizer < memory.student < 2 * memory.optimizer
  assert memory.batch == 32 * (8 * 8 * 3 + 4)  # uint8, masks; no labels
  assert step.flops == pytest.approx(step.counted, rel=0.4)


def test_a_bank_that_nobody_wrote(tmp_path):
  """FKD from the bank that another config describes."""
  smoke = runs.ROOT / "configs" / "fkd_r50.py"
  place = f"teacher.weights={runs.ROOT}/configs/bank_fkd.py:smoke"
  plan = planned(place, path=smoke, variant="smoke")
  assert "would write" in plan.assumed[0]
  # Phases of four crops and of one compute the same.
  (every,) = lowering.steps_of(plan.experiment)
  assert every.steps == 4 and "," in every.name
  assert every.batch.teacher["class"].shape == (8, 5)
  assert every.batch.teacher["probability"].dtype == np.float16
  with pytest.raises(ValueError, match="name the config that does"):
    planned(path=smoke, variant="smoke")
  other = "data.num_classes=8"
  with pytest.raises(ValueError, match="and this config reads"):
    planned(place, other, path=smoke, variant="smoke")


@pytest.mark.slow
def test_a_bank_of_maps_that_nobody_wrote():
  path = runs.ROOT / "configs" / "bank_maps.py"
  place = f"teacher.weights={path}:smoke"
  plan = planned(place, path=path, variant="student_smoke")
  (step,) = lowering.steps_of(plan.experiment)
  assert step.batch.teacher["feature_map"].shape == (8, 2, 2, 8)
  assert step.batch.teacher["feature"].dtype == np.int8


@pytest.mark.slow
def test_phases_at_two_sizes_are_two_programs():
  path = runs.ROOT / "configs" / "kdep_sizes.py"
  steps = lowering.steps_of(planned(path=path, variant="smoke").experiment)
  assert [step.batch.image.shape[1] for step in steps] == [32, 48]


def test_phases_that_compute_the_same_are_compiled_once():
  path = runs.ROOT / "configs" / "stagewise_r18.py"
  steps = lowering.steps_of(planned(path=path, variant="smoke").experiment)
  assert sum(step.steps for step in steps) == 15
  assert len(steps) == 5 and len({step.name for step in steps}) == 5
  judged = [step for step in steps if step.state.best]
  assert judged and "params" in judged[0].state.best


def test_images_that_are_not_here():
  path = runs.ROOT / "configs" / "kdep_r18.py"
  plan = planned(path=path)
  inputs = plan.experiment.inputs
  assert len(inputs.source) == 128_000 and inputs.source.num_classes == 1000
  assert "128,000 images in 1000 classes; not opened" in plan.assumed[0]
  with pytest.raises(ValueError, match="record 0 is not here"):
    inputs.source[0]
  plan = planned("data.name=folder", "data.dir=/not/here", path=path)
  assert "images without a count" in plan.assumed[0]


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (("teacher.source=timm",), "cannot be compiled for a topology"),
    (("data.name=nosuch",), "data has no 'nosuch'"),
    (("price_per_chip_hour=-1.0",), "it must be at least 0"),
    (("topology=v5e-7",), "no v5e slice of 7"),
  ],
)
def test_what_cannot_be_compiled_is_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    planned(*fields)


def test_hosts_must_be_able_to_share(monkeypatch):
  pod = topologies.find("v5p-32")  # 16 chips of four hosts
  with pytest.raises(ValueError, match="5 images do not split over the 4"):
    abstract._check_hosts(20, 4, pod)
  with pytest.raises(ValueError, match=r"is --config.batch_size=16\."):
    abstract._check_hosts(20, 4, pod)
  abstract._check_hosts(32, 4, pod)
  with pytest.raises(ValueError, match=r"--config.eval.batch_size=16\."):
    abstract._blind(12, pod)


def test_only_a_dry_run_has_a_topology():
  for task in (PLACE,), (PLACE, "dry_run=True", "task=write_bank"):
    with pytest.raises(ValueError, match="is for a dry run of the task"):
      config_lib.load(str(runs.CONFIG), task)


def test_what_is_kept(tmp_path, capsys):
  plan = planned(folder=tmp_path)
  one = found(plan, price=2.0)
  study.keep(one, tmp_path)
  kept = json.loads((tmp_path / study.FILE).read_text())
  assert kept["fits"] and kept["chips"] == 1 and len(kept["phases"]) == 1
  seconds = kept["phases"][0]["seconds"]
  parts = max(seconds["compute"], seconds["memory"]) + seconds["interconnect"]
  assert seconds["step"] == pytest.approx(parts) and parts > 0
  assert kept["hours"] == pytest.approx(12 * parts / 3600)
  assert kept["cost"] == pytest.approx(2 * kept["hours"])
  assert kept["images_per_s"] == pytest.approx(32 / parts)
  page = (tmp_path / "report.html").read_text()
  assert "Preflight" in page and "never run" in page
  text = study.text(one)
  need = kept["images_per_s"] / 100
  assert f"{need:.1f} cores like this one" in text and "teacher, GiB" in text


def test_what_does_not_fit(monkeypatch):
  class Full:
    def __init__(self, text):
      self.text = text

    def lower(self):
      raise jax.errors.JaxRuntimeError(self.text)

  plan = planned()
  (lowered,) = lowering.steps_of(plan.experiment)
  jaxpr = lowered.traced.jaxpr

  def step(text):
    full = Full(text)
    full.jaxpr = jaxpr
    refused = dataclasses.replace(lowered, traced=full)
    return compiling.step(refused, plan.topology)

  said = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (17.81G) exceeds available HBM (15.75G)."
  )
  large = step(said)
  assert not large.fits and large.needs == round(17.81 * 2**30)
  whole = dataclasses.replace(found(plan), steps=(large,))
  assert not whole.fits and whole.hours == whole.images_per_s == 0
  assert "NO, 17.81 of 15.75 GiB per chip" in study.text(whole)
  assert json.loads(json.dumps(whole.as_json()))["fits"] is False
  assert compiling.needed("Used 1.5K of 1K hbm. Exceeded") == 1536
  assert compiling.needed("no figure") == 0
  with pytest.raises(ValueError, match="refuses phase 'kdep': INTERNAL: odd"):
    step("INTERNAL: odd\nmore")
