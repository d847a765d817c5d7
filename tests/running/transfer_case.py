"""Transfers on 8 simulated devices in float64; see test_transfer_parallel.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_ENABLE_X64=1 \
    python transfer_case.py FOLDER OUT.npz
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import config as config_lib
from kd_jax import trees
from kd_jax.build import classify, detect, segment
from kd_jax.running import frozen, transfer
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import views

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "transfer.py"
BUILDS = {
  "classify": classify.plan,
  "segment": segment.plan,
  "detect": detect.plan,
}
FIELDS = ("dtype=float64", "optim.lr=0.05", "optim.head_lr=3.0")
MESHES = {"one": 1, "eight": 8}


def planned(task, where):
  """A plan whose weights start in float64."""
  plan = BUILDS[task](config_lib.load(f"{CONFIG}:{task}", list(FIELDS)), where)
  start = frozen.starting_weights(plan)
  cast = jax.tree.map(lambda x: np.asarray(x, np.float64), start)
  experiment = dataclasses.replace(plan.experiment, initial=cast)
  return dataclasses.replace(plan, experiment=experiment)


def main(folder, path):
  views.as_unit = lambda x: x.astype(jnp.float64) / 255
  out, make = {"devices": len(jax.devices())}, mesh_lib.make_mesh
  for name, count in MESHES.items():
    mesh = make(jax.devices()[:count])
    mesh_lib.make_mesh = lambda mesh=mesh: mesh
    for task in BUILDS:
      where = pathlib.Path(folder) / f"{task}_{name}"
      plan, kept = planned(task, where), {}
      assert plan.experiment.mesh.size == count

      def finish(variables, _, kept=kept):
        kept.update(trees.flatten(variables))

      found = transfer.run(plan, where, finish)
      out |= {f"{name}/{task}/weights/{k}": v for k, v in kept.items()}
      figures = found.runs[0].figures
      out |= {f"{name}/{task}/figures/{k}": v for k, v in figures.items()}
      step = plan.experiment.programs["step from 0"]
      judge = plan.judge
      counted = judge._answer if task == "detect" else judge._count
      compiled = [f._cache_size() for f in (step, counted)]
      out[f"{name}/{task}/compiled"] = compiled
  np.savez(path, **out)


if __name__ == "__main__":
  main(*sys.argv[1:])
