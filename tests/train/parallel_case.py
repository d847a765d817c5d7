"""Runs on 8 simulated devices in float64; writes what test_parallel compares.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_ENABLE_X64=1 \
    python parallel_case.py OUT.npz
"""

import sys

import jax
import numpy as np

from kd_jax.align import basis as basis_lib
from kd_jax.methods import kdep
from kd_jax.teachers import online, random
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import evaluate, loop, phases, views
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.teacher import statistics
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Batch

ROWS, SIZE, STEPS = 16, 8, 5
METHOD = kdep.Method(terms=("feature",))
OPTIM = Optim(lr=0.05, momentum=0.9, weight_decay=1e-3)


def network(channels):
  """(model, variables) of a narrow ResNet with random kernels."""
  fields = {
    "layers": (1, 1, 1, 1),
    "channels": channels,
    "stem_width": 8,
    "stem_type": "cifar",
    "num_classes": 0,
    "input_size": (3, SIZE, SIZE),
  }
  source, variables = random.load("resnet18", "", fields)
  return source.model, variables


STUDENT, STUDENT_WEIGHTS = network((8, 8, 16, 16))
TEACHER, TEACHER_WEIGHTS = network((8, 8, 16, 24))


def batch_at(index, dtype=np.float64):
  """Rows differ in brightness: BatchNorm per device would be far off."""
  rng = np.random.default_rng(index)
  bright = np.linspace(0.1, 1, ROWS)[:, None, None, None]
  image = bright * rng.random((ROWS, SIZE, SIZE, 3))
  label = np.arange(ROWS, dtype=np.int32) % 2
  mask = np.ones(ROWS, np.float32)
  return Batch(image=image.astype(dtype), label=label, mask=mask)


def cast(tree, dtype):
  return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def fit_basis(mesh):
  frozen = mesh_lib.place({"teacher": TEACHER_WEIGHTS, "artifact": {}}, mesh)
  batches = [batch_at(100 + i, np.float32) for i in range(6)]
  # As at the end of a data set: padding that must not count.
  batches[-1].mask[10:] = 0
  batches[-1].image[10:] = np.nan
  states = statistics.scatter(
    online.Source(TEACHER),
    frozen,
    ("feature",),
    batches,
    mesh,
    cut=views.Cut(),
  )
  return basis_lib.finish(states["feature"], "x")


def new_state(mesh, settings, dtype):
  job = loop.Job(
    student=STUDENT,
    source=online.Source(TEACHER),
    stretches=phases.stretches(METHOD, STEPS),
    settings=settings,
    optim=OPTIM,
    frozen={},
    **dict.fromkeys(("batches", "record", "evaluate")),
    **dict.fromkeys(("batch_size", "log_every", "eval_every", "save_every"), 1),
  )
  student = cast(STUDENT_WEIGHTS, dtype)
  return job.new_state(
    {"student": student["params"]},
    {"student": student["batch_stats"], "method": {}},
    jax.random.key(0),
  )


def frozen_on(mesh, basis, dtype):
  teacher = cast(TEACHER_WEIGHTS, dtype)
  target = cast(basis.artifact(16), dtype)
  return mesh_lib.place({"teacher": teacher, "artifact": target}, mesh)


def train(
  mesh,
  basis,
  *,
  fsdp=False,
  teacher_fsdp=False,
  accum_steps=1,
  group=0,
  dtype=np.float64,
):
  """(state, losses) after STEPS of KDEP with SGD, compiled once."""
  settings = step_lib.Settings(
    weights={"feature": 1.0},
    accum_steps=accum_steps,
    mesh=mesh,
    fsdp=fsdp,
    batch_norm_group=group,
  )
  teaching = Teaching(
    online.Source(TEACHER), cast(TEACHER_WEIGHTS, dtype), "x", teacher_fsdp
  ).on(mesh)
  step = step_lib.make_train_step(
    STUDENT,
    teaching.source,
    METHOD.phases()[0],
    OPTIM.transform(STEPS),
    settings,
  )
  state = new_state(mesh, settings, dtype)
  frozen = frozen_on(mesh, basis, dtype) | {"teacher": teaching.place(mesh)}
  if teaching.spread:
    part = frozen["teacher"]["params"]["stage4"]["block0"]["conv2"]["kernel"]
    parts = mesh.size if teacher_fsdp else mesh.shape["model"]
    assert part.addressable_shards[0].data.size * parts == part.size
  losses, layout = [], shares(state)
  for index in range(STEPS):
    batch = mesh_lib.put_batch(batch_at(index, dtype), mesh)
    state, found = step(state, frozen, batch)
    losses.append(float(found["loss/feature"]))
  assert shares(state) == layout, "the step changed the layout"
  assert step._cache_size() == 1, "the step was compiled more than once"
  return state, np.array(losses)


def restored(mesh, state, folder, *, fsdp):
  """`state` through a checkpoint, onto another mesh."""
  settings = step_lib.Settings({}, mesh=mesh, fsdp=fsdp)
  checkpoints = checkpoints_lib.Checkpoints(folder)
  checkpoints.save(STEPS, state, {})
  checkpoints.wait()
  like = new_state(mesh, settings, np.float64)
  found = checkpoints.restore(STEPS, like)
  checkpoints.close()
  return found


def shares(state):
  """{path: part of the array that the first device holds}."""
  return {
    path: x.addressable_shards[0].data.size / x.size
    for path, x in leaves("", (state.params, state.opt)).items()
    if x.ndim
  }


def evaluated(mesh, basis):
  """(features, figures) of the student before training."""
  evaluator = evaluate.Evaluator(
    student=STUDENT,
    source=online.Source(TEACHER),
    method=METHOD,
    mesh=mesh,
    train=lambda: Pass(200),
    test=lambda: Pass(300),
    evals=("knn",),
  )
  state = new_state(mesh, step_lib.Settings({}, mesh=mesh), np.float32)
  placed = mesh_lib.place(STUDENT_WEIGHTS, mesh)
  found = evaluator(state, frozen_on(mesh, basis, np.float32))
  return evaluator._features(placed, lambda: Pass(300)).feature, found


class Pass:
  """Three batches, the last one padded."""

  def __init__(self, first):
    batches = [batch_at(first + i, np.float32) for i in range(3)]
    batches[-1].mask[5:] = 0
    self._batches = iter(batches)

  def __iter__(self):
    return self._batches

  def close(self):
    pass


def leaves(prefix, tree):
  found = jax.tree_util.tree_leaves_with_path(tree)
  return {prefix + jax.tree_util.keystr(path): x for path, x in found}


def main(path):
  meshes = {
    "one": mesh_lib.make_mesh(jax.devices()[:1]),
    "eight": mesh_lib.make_mesh(),
    "square": mesh_lib.make_mesh(model=2),
    "model": mesh_lib.make_mesh(model=8),
  }
  out = {"devices": meshes["eight"].size}
  for name in ("one", "eight"):
    basis = fit_basis(meshes[name])
    out |= {f"basis/{name}/{k}": v for k, v in vars(basis).items()}
  cases = {
    "one": {},
    "eight": {},
    "eight_fsdp": {"fsdp": True},
    "one_accum": {"accum_steps": 2},
    "eight_accum": {"accum_steps": 2},
    "eight_teacher": {"teacher_fsdp": True},
    "square_both": {"fsdp": True, "teacher_fsdp": True},
    "model_alone": {},
    "one_groups": {"group": 4},
    "eight_groups": {"group": 4},
    "one_halves": {"group": 8},
    "square_halves": {"group": 8},
    "one_float32": {"dtype": np.float32},
    "eight_float32": {"dtype": np.float32},
  }
  for name, fields in cases.items():
    mesh = meshes[name.partition("_")[0]]
    state, out[f"loss/{name}"] = train(mesh, basis, **fields)
    out |= leaves(f"params/{name}", state.params["student"])
    out |= leaves(f"stats/{name}", state.stats["student"])
    if name == "eight_fsdp":
      out |= {f"share{k}": v for k, v in shares(state).items()}
      sharded = state
  for name in ("one", "eight"):
    feature, figures = evaluated(meshes[name], basis)
    out[f"feature/{name}"] = feature
    out |= {f"figure/{name}/{k}": v for k, v in figures.items()}
  for name, mesh in (("one", meshes["one"]), ("eight_fsdp", meshes["eight"])):
    state = restored(mesh, sharded, f"{path}.saved", fsdp=mesh.size > 1)
    out |= leaves(f"restored/{name}", state.params["student"])
  out |= {f"restored_share{k}": v for k, v in shares(state).items()}
  np.savez(path, **out)


if __name__ == "__main__":
  main(sys.argv[1])
