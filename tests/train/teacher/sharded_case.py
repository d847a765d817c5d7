"""Teachers spread over 8 simulated devices in float64; see test_sharded.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_ENABLE_X64=1 \
    python sharded_case.py OUT.json
"""

import json
import sys

import jax
import numpy as np

from kd_jax import trees
from kd_jax.teachers import random
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Batch

TEACHERS = {
  "vit_tiny_patch16_224": {
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 4,
    "img_size": 16,
    "patch_size": 4,
  },
  "swin_tiny_patch4_window7_224": {
    "embed_dim": 8,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 2, 2, 4),
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
  },
  "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
  "mobilenetv2_100": {"channel_multiplier": 0.25},
}
LAYOUTS = {
  "model 2": (2, False),
  "model 8": (8, False),
  "fsdp": (1, True),
  "model 4 and fsdp": (4, True),
}
ROWS = 16


def taps(teaching, mesh, size):
  """The pooled feature and what the last stage makes of a changed map."""
  rng = np.random.default_rng(1)
  image = rng.random((ROWS, size, size, 3))
  batch = Batch(image, np.zeros(ROWS, np.int32), np.ones(ROWS))

  @jax.jit
  def run(frozen, batch):
    found = teaching.source(frozen, batch)
    again = found.resume("stage4", found.taps["stage3"] * 1.1)
    return found.taps["pooled"], again["pooled"]

  frozen = {"teacher": teaching.place(mesh), "artifact": {}}
  found = run(frozen, mesh_lib.put_batch(batch, mesh))
  return [np.asarray(x) for x in found], frozen["teacher"]


def share(variables):
  """Part of all weights that the first device holds."""
  leaves = trees.flatten(variables).values()
  own = sum(x.addressable_shards[0].data.size for x in leaves)
  return own / sum(x.size for x in leaves)


def main(path):
  found = {}
  for name, fields in TEACHERS.items():
    size = fields.get("img_size", 32)
    source, variables = random.load(name, "", fields)
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    alone = Teaching(source, variables, "x")
    one = mesh_lib.make_mesh(jax.devices()[:1])
    want, _ = taps(alone.on(one), one, size)
    assert all(np.ptp(x) > 0 for x in want)
    for layout, (count, fsdp) in LAYOUTS.items():
      mesh = mesh_lib.make_mesh(model=count)
      spread = Teaching(source, variables, "x", fsdp).on(mesh)
      got, placed = taps(spread, mesh, size)
      error = max(
        float(np.abs(g - w).max() / np.abs(w).max())
        for g, w in zip(got, want, strict=True)
      )
      found[f"{name}, {layout}"] = [error, share(placed)]
  with open(path, "w") as file:
    json.dump(found, file)


if __name__ == "__main__":
  main(sys.argv[1])
