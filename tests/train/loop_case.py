"""A training loop in a folder."""

import contextlib

from kd_jax.train import ckpt, loop, metrics


@contextlib.contextmanager
def running(job, folder):
  checkpoints = ckpt.Checkpoints(folder / "checkpoints", keep=job.total_steps)
  progress = metrics.Progress(job.total_steps, active=False)
  try:
    with metrics.Writer(folder) as writer:
      yield loop.Run(job, checkpoints, writer, progress), checkpoints
  finally:
    checkpoints.close()
