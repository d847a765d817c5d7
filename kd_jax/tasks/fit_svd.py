"""Fits the teacher's mean and principal directions, and nothing else.

`pretrain` does this by itself; run it alone to share one artifact between many
students: --config.fit.artifact=PATH. A method that reads bases of several taps,
or has several teachers, gets one of each in a single pass, in a file each.
"""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.align import basis as basis_lib
from kd_jax.buckets import spool
from kd_jax.build import images, training
from kd_jax.build.experiment import REAL
from kd_jax.build.teachers import joined
from kd_jax.methods import heard
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib


def run(config: ConfigDict, where: str | Path) -> dict[str, basis_lib.Basis]:
  """Fits (or finds) the bases that `config` needs.

  Returns:
    {tap: its basis}; taps of several teachers are 'NAME/tap'.

  Raises:
    ValueError: the method reads no basis, or anything `pretrain` refuses.
  """
  where = Path(where)
  with workdir.claimed(where, config.to_dict()):
    method = training.method(config)
    taps = heard.artifact_taps(method)
    if not taps:
      raise ValueError(
        f"method {config.method.name!r} with this aligner and these losses "
        "reads no basis; set --config.method.align.name=svd"
      )
    mesh = training.mesh(config)
    mesh_lib.check_batch(config.batch_size, mesh)
    data = images.source(config.data.to_dict())
    teaching = REAL.teaching(config).on(mesh)
    inputs = images.inputs(config, data, teaching)
    inputs = inputs.reporting(SkipLog(where).report(data))
    inputs = joined.inputs(inputs, config.to_dict(), teaching)
    fit = images.fit(config.fit.to_dict(), teaching, inputs, mesh, where)
    if method.artifact_tap is not None:
      paths, found = {taps[0]: fit.path}, {taps[0]: fit.basis(taps[0])}
    else:
      paths, found = {t: fit.path_of(t) for t in taps}, fit.bases(taps)
  if jax.process_index() == 0:
    for tap, basis in found.items():
      _show(basis, spool.address(paths[tap]))
  return found


def _show(basis: basis_lib.Basis, place: str) -> None:
  """Where a basis is, and what its leading directions explain."""
  print(f"{basis.count} rows -> {place}")
  for width in (2**k for k in range(4, basis.mean.size.bit_length())):
    share = basis_lib.explained(basis, width)
    print(f"  {width:5d} of {basis.mean.size} directions: {share:.1%}")
