"""From a config to what writing a bank needs, one per process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.buckets import spool
from kd_jax.build import checks, images, networks, training
from kd_jax.codecs.base import CodecLike
from kd_jax.data import pipeline
from kd_jax.report.run.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import views
from kd_jax.train.inputs import Inputs
from kd_jax.train.teacher.artifact import Fit
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Array, Batch

Constants = Mapping[str, Array]
Stored = tuple[dict[str, Array], Array]


@dataclasses.dataclass(frozen=True)
class BankJob:
  """A teacher, its images, and how what it says is stored.

  Attributes:
    place: of the bank, a directory or a URL.
    passes: epochs to store.
    shard: records per file.
    price_per_hour: of the machine of one process, for the estimate.
    teacher: architecture, for people.
    codec_fields: what the codec was built of, for the bank's header.
    codec: how taps are stored.
    teaching: the teacher.
    inputs: the images.
    fit: where the teacher's basis comes from.
    mesh: the devices of this process.
  """

  place: str
  passes: int
  shard: int
  price_per_hour: float
  teacher: str
  codec_fields: Mapping[str, Any]
  codec: CodecLike
  teaching: Teaching
  inputs: Inputs
  fit: Fit
  mesh: jax.sharding.Mesh

  def taps(
    self, number: int, rows: range
  ) -> Iterator[tuple[dict[str, Array], np.ndarray]]:
    """({tap: device array}, geometry) of batch after batch, padded."""
    inputs = self.inputs
    stream = pipeline.pass_batches(
      inputs.source,
      inputs.views,
      rows,
      number=number,
      batch_size=inputs.batch_size,
      seed=inputs.seed,
    )
    for found in stream:
      image, skipped = found["image"], found["skipped"]
      if inputs.on_skip is not None:
        inputs.on_skip(skipped[skipped >= 0].tolist())
      labels = np.full(len(image), -1, np.int32)
      batch = Batch(image, labels, np.ones(len(image), np.float32))
      placed = mesh_lib.put_batch(batch, self.mesh)
      yield self.run(self.frozen, placed), found["geometry"]

  @functools.cached_property
  def frozen(self) -> dict[str, Any]:
    """The teacher, on the devices."""
    teacher = self.teaching.place(self.mesh)
    return {"teacher": teacher, "artifact": {}}

  @functools.cached_property
  def run(self) -> Callable[[Mapping[str, Any], Batch], dict[str, Array]]:
    """(frozen, batch) -> taps, compiled once."""
    return jax.jit(self._taps)

  @functools.cached_property
  def encode(self) -> Callable[[Constants, Mapping[str, Array]], Stored]:
    """(constants, taps) -> (stored arrays, whether all taps are finite)."""

    @jax.jit
    def encode(constants: Constants, taps: Mapping[str, Array]) -> Stored:
      finite = [jnp.isfinite(tap).all() for tap in taps.values()]
      return self.codec.encode(constants, taps), jnp.stack(finite).all()

    return encode

  def _taps(self, frozen: Mapping[str, Any], batch: Batch) -> dict[str, Array]:
    seen = views.seen(batch, views.Cut())
    return dict(self.codec.collect(self.teaching.source(frozen, seen)))


def bank_job(config: ConfigDict, where: Path) -> BankJob:
  """Builds what a config names and checks that it fits together.

  Args:
    config: of the task 'write_bank'.
    where: the workdir.

  Raises:
    ValueError: something does not exist or does not fit.
  """
  if config.bank.passes < 1:
    raise ValueError(f"bank.passes is {config.bank.passes}; at least 1")
  everywhere = training.mesh(config)
  mesh = mesh_lib.make_mesh(jax.local_devices(), model=config.mesh.model)
  mesh_lib.check_batch(config.batch_size, mesh)
  data = images.source(config.data.to_dict())
  teaching = networks.teaching(config)
  inputs = images.inputs(config, data, teaching)
  inputs = inputs.reporting(SkipLog(where).report(data))
  if inputs.views.canvas:
    raise ValueError(
      "a bank is written from crops made on the host; set preprocess.canvas=0"
    )
  settings = training.settings(config, mesh, inputs.views)
  checks.crops(config.batch_size, inputs.views, settings)
  codec_fields = config.bank.codec.to_dict()
  fit = config.fit.to_dict()
  return BankJob(
    place=config.bank.place or spool.address(where / "bank"),
    passes=config.bank.passes,
    shard=config.bank.shard,
    price_per_hour=config.bank.price_per_hour,
    teacher=config.teacher.name,
    codec_fields=codec_fields,
    codec=resolve.build("codecs", "Codec", codec_fields),
    teaching=teaching.on(mesh),
    inputs=inputs,
    fit=images.fit(fit, teaching.on(everywhere), inputs, everywhere, where),
    mesh=mesh,
  )
