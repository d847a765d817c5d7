"""From a config to the plan of a segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.build import images, networks, transfer
from kd_jax.data import windows
from kd_jax.data.dense import Dense
from kd_jax.data.streams import Stream
from kd_jax.interfaces import DataSource
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.transfer import draws, segmenter
from kd_jax.transfer.heads.base import MapHead
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.segment import Judge, Method
from kd_jax.transfer.segmenter import Segmenter

initial = transfer.initial_backbone


def plan(config: ConfigDict, where: str | Path) -> Plan[Judge]:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'segment'.
    where: the workdir; nothing is written.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  train = images.source(config.data.to_dict())
  test = images.source(config.test.to_dict(), "test")
  _check_masks(train, test)
  student, wanted = _student(config.to_dict(), train), transfer.protocol(config)
  views = resolve.construct(Dense, config.preprocess.to_dict(), "preprocess")
  terms = tuple(name for name, weight in config.losses.items() if weight)
  transfer.check_mix(config.mix.to_dict(), "masks")
  transfer.check_evals(wanted.evals, "segmentation")
  _check_aux(config.aux.name, config.losses.get("aux", 0.0))

  def judge(mesh: jax.sharding.Mesh, skips: SkipLog) -> Judge:
    def batches(source: DataSource) -> Stream[windows.DenseBatch]:
      return windows.window_batches(
        source,
        views,
        batch_size=config.eval.batch_size,
        limit=config.eval.limit or None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_skip=skips.report(source),
      )

    return Judge(student, mesh, batches, views.image_size, config.eval.mirror)

  task = transfer.Task(
    student=student,
    views=views,
    method=Method(terms, wanted.trains, segmenter.unread(student)),
    judge=judge,
    initial=initial(config),
    classes=0,
  )
  holdout = wanted.holdout if wanted.searches else 0.0
  parts = draws.parts(train, None, holdout)
  for judged in (test, parts.held_out()):
    windows.check_room(judged, views, config.eval.limit or None)
  return transfer.plan(config, Path(where), task, parts, test)


def _student(config: Mapping[str, Any], train: DataSource) -> Segmenter:
  """The backbone with its heads, of the classes of the masks."""
  backbone = networks.bare(config["student"], config["dtype"])
  shared = {"num_classes": len(train.mask_names), "dtype": config["dtype"]}
  head = _head({**shared, **config["head"]})
  if not config["aux"]["name"]:
    return Segmenter(backbone, head)
  return Segmenter(backbone, head, _head({**shared, **config["aux"]}))


def _head(fields: Mapping[str, Any]) -> MapHead:
  return resolve.build("transfer.heads", "Head", fields)


def _check_masks(train: DataSource, test: DataSource) -> None:
  """Whether both sets have masks, of the same classes."""
  for name, found in (("data", train), ("test", test)):
    if not found.mask_names:
      raise ValueError(
        f"config.{name} has no masks; segmentation needs a source with masks, "
        f"such as --config.{name}.name=pairs"
      )
  if tuple(train.mask_names) != tuple(test.mask_names):
    raise ValueError(
      f"the masks of config.data have {len(train.mask_names)} classes and "
      f"those of config.test {len(test.mask_names)}, or other names; they "
      "must be the same, in the same order"
    )


def _check_aux(name: str, weight: float) -> None:
  """Whether there is an auxiliary head exactly where it has a loss."""
  if name and not weight:
    raise ValueError(
      f"aux.name is {name!r}, and nothing trains that head: losses.aux is 0. "
      "Set --config.losses.aux=0.4 or --config.aux.name="
    )
  if weight and not name:
    raise ValueError(
      f"losses.aux is {weight}, and there is no auxiliary head. Set "
      "--config.losses.aux=0 or --config.aux.name=fcn"
    )
