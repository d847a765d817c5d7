"""Method and settings of the train step, as a config names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.build import checks
from kd_jax.build.teachers import joined
from kd_jax.data.views import Views
from kd_jax.interfaces import Method
from kd_jax.report.trackers import together
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.experiment import Schedule
from kd_jax.train.optim import Optim
from kd_jax.train.step import Settings
from kd_jax.train.views import Mix, cut_of


def method(config: ConfigDict) -> Method:
  """The method that `config.method` names, with the terms of some weight."""
  return joined.method(config.to_dict())


def optim(fields: Mapping[str, Any]) -> Optim:
  """The optimizer that `config.optim` describes."""
  return resolve.construct(Optim, fields, "optim")


def schedule(config: ConfigDict) -> Schedule:
  """How long the run takes, and what it does on the way.

  Raises:
    ValueError: a negative number, or a tracker that cannot be used.
  """
  checks.counts(
    {
      "seed": config.seed,
      "log_every": config.log_every,
      "eval.every": config.eval.every,
      "eval.limit": config.eval.limit,
      "eval.pictures": config.eval.pictures,
      "checkpoint.every": config.checkpoint.every,
      "input.workers": config.input.workers,
      "input.threads": config.input.threads,
      "input.prefetch": config.input.prefetch,
      "input.keep_gib": config.input.get("keep_gib", 0.0),
    }
  )
  return Schedule(
    steps=config.steps,
    batch_size=config.batch_size,
    seed=config.seed,
    log_every=config.log_every,
    eval_every=config.eval.every,
    save_every=config.checkpoint.every,
    keep=config.checkpoint.keep,
    trackers=together.check(config.trackers if "trackers" in config else ()),
  )


def mesh(config: ConfigDict) -> jax.sharding.Mesh:
  """All devices, as `config.mesh` arranges them.

  Raises:
    ValueError: they cannot be arranged so.
  """
  return mesh_lib.make_mesh(model=config.mesh.model)


def settings(
  config: ConfigDict,
  mesh: jax.sharding.Mesh,
  views: Views,
  classes: int = 0,
) -> Settings:
  """What the train step needs.

  Args:
    config: of the run.
    mesh: the devices.
    views: how images are prepared.
    classes: number of label classes of the data; 0 if there are none.

  Raises:
    ValueError: a value that is not allowed.
  """
  if not 0 <= config.ema_decay < 1:
    raise ValueError(f"ema_decay is {config.ema_decay}; it must be in [0, 1)")
  return Settings(
    weights=joined.weights(config.to_dict()),
    accum_steps=config.accum_steps,
    ema_decay=config.ema_decay,
    mesh=mesh,
    fsdp=config.fsdp,
    cut=cut_of(views),
    mix=resolve.construct(Mix, config.mix.to_dict(), "mix"),
    classes=classes,
    crops=views.num_crops,
    batch_norm_group=_group(
      config.batch_norm_group, config.batch_size // config.accum_steps
    ),
  )


def _group(group: int, rows: int) -> int:
  """Images that share BatchNorm statistics, of so many in a microbatch.

  Raises:
    ValueError: a microbatch does not consist of such groups.
  """
  if group < 0 or (group and rows % group):
    raise ValueError(
      f"batch_norm_group is {group}; it must divide the {rows} images of a "
      "microbatch, or be 0 for all of them"
    )
  return 0 if group == rows else group
