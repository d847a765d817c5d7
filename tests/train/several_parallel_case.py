"""Two teachers on 1 and on 8 simulated devices, in float64; a line of JSON.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_ENABLE_X64=1 \
    python several_parallel_case.py
"""

import json

import jax
import numpy as np
import parallel_case as case

from kd_jax.methods import multi
from kd_jax.teachers import online
from kd_jax.train import loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.teacher import several
from kd_jax.train.teacher.teaching import Teaching

OTHER, OTHER_WEIGHTS = case.network((8, 8, 8, 12))
LINEAR = {"name": "kdep", "align": {"name": "linear"}}
METHOD = multi.Method(
  terms=("a/feature", "b/feature"),
  parts={"a": LINEAR, "b": LINEAR},
  apart=True,
  balance={"name": "dropping"},
)


def teachers():
  parts = {
    "a": (case.TEACHER, case.TEACHER_WEIGHTS),
    "b": (OTHER, OTHER_WEIGHTS),
  }
  return several.together(
    {
      name: Teaching(online.Source(model), case.cast(found, np.float64), name)
      for name, (model, found) in parts.items()
    },
    {"b": 12},
  )


def batch_at(index):
  batch = case.batch_at(index)
  large = np.random.default_rng(50 + index).random((case.ROWS, 12, 12, 3))
  return batch.replace(views={"b": large})


def train(mesh):
  teaching = teachers().on(mesh)
  settings = step_lib.Settings(
    weights={"a/feature": 1.0, "b/feature": 0.5}, mesh=mesh
  )
  batch = phases.image_batch(case.ROWS, case.SIZE, teaching.source)
  frozen = {"teacher": teaching.variables, "artifact": {}}
  specs = (
    phases.student_specs(case.STUDENT, batch),
    phases.teacher_specs(teaching.source, frozen, batch),
  )
  own = case.cast(METHOD.init(jax.random.key(1), *specs), np.float64)
  student = case.cast(case.STUDENT_WEIGHTS, np.float64)
  tx = case.OPTIM.transform(case.STEPS)
  params = {"student": student["params"], "method": own["params"]}
  (phase,) = METHOD.phases()
  state = loop.placed_state(
    params,
    {"student": student["batch_stats"], "method": {}},
    tx.init(step_lib.trainable(params, phase)),
    jax.random.key(0),
    settings,
  )
  step = step_lib.make_train_step(
    case.STUDENT, teaching.source, phase, tx, settings
  )
  frozen = {"teacher": teaching.place(mesh), "artifact": {}}
  losses = []
  for index in range(case.STEPS):
    placed = mesh_lib.put_batch(batch_at(index), mesh)
    state, found = step(state, frozen, placed)
    losses.append([float(found[f"loss/{name}/feature"]) for name in "ab"])
  return losses, jax.tree.leaves(jax.device_get(state.params))


def main():
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  (losses, one), (_, eight) = train(mesh), train(mesh_lib.make_mesh())
  apart = max(
    float(np.abs(x - y).max()) for x, y in zip(one, eight, strict=True)
  )
  found = {"devices": jax.device_count(), "apart": apart, "losses": losses}
  print(json.dumps(found))


if __name__ == "__main__":
  main()
