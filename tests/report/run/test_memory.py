"""What the start-up summary says about memory; nothing is trained."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax import trees
from kd_jax.build.experiment import experiment
from kd_jax.report.run import memory, throughput
from kd_jax.train import phases
from kd_jax.types import Batch

RANDOM = ("teacher.source=random",)
PAIR = runs.ROOT / "configs" / "scalekd_r50.py"
NAMES = {"student", "projectors", "teacher", "activations"}


def parts_of(folder, *fields, path=runs.CONFIG, variant=""):
  config = config_lib.load(
    f"{path}:{variant}" if variant else str(path), fields
  )
  return config, experiment(config, folder)


def size(tree):
  return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("fields", "copies", "more"),
  [
    ((), 3, 0),  # parameters, gradients, momentum
    (("ema_decay=0.9",), 4, 0),
    (("optim.name=adamw",), 4, 4),  # two moments and a counter
  ],
)
def test_the_train_state_is_counted_exactly(tmp_path, fields, copies, more):
  config, parts = parts_of(tmp_path, *RANDOM, *fields)
  image = np.zeros((1, 8, 8, 3), np.float32)
  variables = parts.student.init(jax.random.key(0), image, train=False)
  found = memory.estimate(parts)
  wanted = copies * size(variables["params"]) + size(variables["batch_stats"])
  apart = round(found["student"] * 1e9) - wanted
  # The schedule counts its steps, too.
  assert apart in (more, more + 4), apart
  teacher = size(trees.flatten(parts.teaching.variables))
  assert round(found["teacher"] * 1e9) == teacher > 40_000
  assert set(found) == NAMES - {"projectors"}


def test_activations_grow_with_the_microbatch_and_shrink_by_remat(tmp_path):
  one = ("losses.proxy_alt=0", "losses.final_alt=0")
  config, parts = parts_of(
    tmp_path, *one, path=PAIR, variant="smoke_unlabelled"
  )

  def sizes(batch_size=8, accum_steps=1, **method):
    settings = dataclasses.replace(parts.settings, accum_steps=accum_steps)
    schedule = dataclasses.replace(parts.schedule, batch_size=batch_size)
    changed = dataclasses.replace(parts.method, **method)
    return memory.estimate(
      dataclasses.replace(
        parts,
        schedule=schedule,
        settings=settings,
        method=changed,
        stretches=phases.stretches(changed, config.steps),
      )
    )

  found = {
    "plain": sizes(),
    "dots": sizes(remat="dots"),
    "full": sizes(remat="full"),
    "twice": sizes(remat="full", batch_size=16),
    "halves": sizes(remat="full", batch_size=16, accum_steps=2),
  }
  kept = {name: each.pop("activations") for name, each in found.items()}
  assert kept["full"] < kept["dots"] < kept["plain"]
  # What belongs to no image, such as statistics, does not grow.
  assert 1.9 * kept["full"] < kept["twice"] < 2 * kept["full"]
  assert kept["halves"] == kept["full"]
  for each in found.values():
    assert each == found["plain"] and set(each) == NAMES - {"activations"}


def test_compiled_steps_need_what_is_estimated(tmp_path):
  """Within a factor of two: operations are fused, and work space is needed."""
  config, parts = parts_of(tmp_path, *RANDOM, "batch_size=128")
  batch = Batch(
    np.zeros((128, 8, 8, 3), np.uint8),
    np.zeros(128, np.int32),
    np.ones(128, np.float32),
  )
  step, *given = throughput.ready(parts, parts.stretches[0].phase, batch)
  needs = step.lower(*given).compile().memory_analysis()
  kept = memory.estimate(parts)["activations"] * 1e9
  assert 0.5 < needs.temp_size_in_bytes / kept < 2


def test_fsdp_shares_the_train_state(tmp_path):
  """An abstract mesh will do: only shapes are asked for."""
  # A group that no device has all of changes nothing here.
  config, parts = parts_of(tmp_path, *RANDOM, "batch_norm_group=16")
  mesh = jax.sharding.AbstractMesh((8, 1), parts.mesh.axis_names)
  found = []
  for fsdp in (False, True):
    settings = dataclasses.replace(parts.settings, fsdp=fsdp)
    spread = dataclasses.replace(parts, mesh=mesh, settings=settings)
    found.append(memory.estimate(spread))
  assert found[1]["student"] < 0.5 * found[0]["student"]
  assert found[1]["teacher"] == found[0]["teacher"]
  whole = memory.estimate(parts)
  assert found[0]["activations"] < 0.2 * whole["activations"]


def test_a_line_for_people():
  sizes = {"student": 0.1, "teacher": 0.78912, "activations": 5.25}
  said = "student 0.1, teacher 0.789, activations 5.25 (estimated)"
  assert memory.line(sizes) == said
