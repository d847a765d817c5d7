"""The whole step of a detector, and its answers, compiled for eight chips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from kd_jax import config as config_lib
from kd_jax.build import detect as build
from kd_jax.data.detection_batches import EvalBatch
from kd_jax.models.backbone import variable_shapes
from kd_jax.preflight import collectives, hlo, lowering, topologies
from kd_jax.train import mesh as mesh_lib


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
  devices = topologies.devices(topologies.find("v5e-8"))
  mesh, make = mesh_lib.make_mesh(devices), mesh_lib.make_mesh
  mesh_lib.make_mesh = lambda *_, **__: mesh
  config = config_lib.load(f"{runs.TRANSFER}:detect", ["dtype=bfloat16"])
  found = build.plan(config, tmp_path_factory.mktemp("detector"))
  mesh_lib.make_mesh = make
  return found


def test_a_step_compiles_and_stays_on_the_chips(plan):
  (lowered,) = lowering.steps_of(plan.experiment)
  compiled = lowered.traced.lower().compile()
  program = hlo.parse(compiled.as_text())
  found = collectives.find(program)
  assert found
  text = compiled.as_text()
  for outside in ("outfeed", "infeed", "send(", "recv(", "callback"):
    assert outside not in text, outside


def test_answers_compile(plan):
  student, mesh = plan.experiment.student, plan.experiment.mesh
  split, whole = mesh_lib.sharded(mesh), mesh_lib.replicated(mesh)

  def spec(where, dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  variables = jax.tree.map(
    lambda x: spec(whole, x.dtype, *x.shape), variable_shapes(student)
  )
  batch = EvalBatch(
    image=spec(split, jnp.uint8, 16, 32, 32, 3),
    size=spec(split, jnp.int32, 16, 2),
    scale=spec(split, jnp.float32, 16, 2),
    index=spec(split, jnp.int32, 16),
  )
  compiled = plan.judge._answer.lower(variables, batch).compile()
  assert "callback" not in compiled.as_text()
  shapes = {k: v.shape for k, v in compiled.out_info.items()}
  assert shapes["boxes"] == (16, 10, 4) and np.prod(shapes["masks"]) > 160
