"""Fits the teacher's mean and principal directions, and nothing else.

`pretrain` does this by itself; run it alone to share one artifact between many
students: --config.fit.artifact=PATH.
"""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.align import basis as basis_lib
from kd_jax.buckets import spool
from kd_jax.build import images, networks, training
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib


def run(config: ConfigDict, where: str | Path) -> basis_lib.Basis:
  """Fits (or finds) the basis that `config` needs.

  Raises:
    ValueError: the method reads no basis, or anything `pretrain` refuses.
  """
  where = Path(where)
  with workdir.claimed(where, config.to_dict()):
    method = training.method(config)
    if method.artifact_tap is None:
      raise ValueError(
        f"method {config.method.name!r} with this aligner and these losses "
        "reads no basis; set --config.method.align.name=svd"
      )
    mesh = training.mesh(config)
    mesh_lib.check_batch(config.batch_size, mesh)
    data = images.source(config.data.to_dict())
    teaching = networks.teaching(config).on(mesh)
    inputs = images.inputs(config, data, teaching)
    inputs = inputs.reporting(SkipLog(where).report(data))
    fit = images.fit(config.fit.to_dict(), teaching, inputs, mesh, where)
    found = fit.basis(method.artifact_tap)
  if jax.process_index() == 0:
    print(f"{found.count} images -> {spool.address(fit.path)}")
    for width in (2**k for k in range(4, found.mean.size.bit_length())):
      share = basis_lib.explained(found, width)
      print(f"  {width:5d} of {found.mean.size} directions: {share:.1%}")
  return found
