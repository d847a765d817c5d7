"""A training loop in a folder."""

import contextlib

from kd_jax.report import metrics
from kd_jax.report.run.progress import Progress
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import loop


@contextlib.contextmanager
def running(job, folder):
  checkpoints = checkpoints_lib.Checkpoints(
    folder / "checkpoints", keep=job.total_steps
  )
  progress = Progress(job.total_steps, active=False)
  try:
    with metrics.Writer(folder) as writer:
      yield loop.Run(job, checkpoints, writer, progress), checkpoints
  finally:
    checkpoints.close()
