"""Runs a teacher once over every crop and stores what it says.

Every process writes shards of its own, on its own devices. What is complete
stays: a killed writer goes on where it was, and more passes can be added.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from kd_jax import resolve
from kd_jax.build import bank_checks, setup
from kd_jax.data import bank as bank_lib
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.report import summary
from kd_jax.report.skipped_images import SkipLog
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases, views, workdir
from kd_jax.types import Batch, DataSource

_GEOMETRY = ((7,), "int16")
_SAMPLE = 1024  # records that scales are taken from


@dataclasses.dataclass(frozen=True)
class Job:
  """Everything that writing needs; one per process.

  Attributes:
    config: of the task.
    data: the images.
    taught: the teacher.
    views: how crops are cut.
    codec: how taps are stored.
    mesh: the devices of this process.
    skips: lists images that cannot be read.
  """

  config: ConfigDict
  data: DataSource
  taught: setup.Teaching
  views: Preprocess
  codec: Any
  mesh: jax.sharding.Mesh
  skips: SkipLog

  def taps(self, number: int, rows: range) -> Iterator[tuple[Any, Any]]:
    """({tap: device array}, geometry) of batch after batch, padded."""
    stream = pipeline.pass_batches(
      self.data,
      self.views,
      rows,
      number=number,
      batch_size=self.config.batch_size,
      seed=self.config.seed,
    )
    report = self.skips.report(self.data)
    for found in stream:
      image, skipped = found["image"], found["skipped"]
      report(skipped[skipped >= 0].tolist())
      labels = np.full(len(image), -1, np.int32)
      batch = Batch(image, labels, np.ones(len(image), np.float32))
      placed = mesh_lib.put_batch(batch, self.mesh)
      yield self.run(self.frozen, placed), found["geometry"]

  @functools.cached_property
  def frozen(self) -> dict[str, Any]:
    """The teacher, on the devices."""
    teacher = mesh_lib.place(self.taught.variables, self.mesh)
    return {"teacher": teacher, "artifact": {}}

  @functools.cached_property
  def run(self) -> Any:
    """(frozen, batch) -> taps, compiled once."""
    return jax.jit(self._taps)

  @functools.cached_property
  def encode(self) -> Any:
    """(constants, taps) -> (stored arrays, whether all taps are finite)."""

    @jax.jit
    def encode(constants, taps):
      finite = [jnp.isfinite(tap).all() for tap in taps.values()]
      return self.codec.encode(constants, taps), jnp.stack(finite).all()

    return encode

  def _taps(self, frozen: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    seen = views.seen(batch, views.Cut())
    return dict(self.codec.collect(self.taught.source(frozen, seen)))


def run(config: ConfigDict, where: str | Path) -> Path | str:
  """Writes, goes on with or verifies the bank of `config`.

  Returns:
    Its place.

  Raises:
    ValueError: anything that does not fit, or a bank that is damaged.
  """
  where = Path(where)
  place = config.bank.place or str(where / "bank")
  if config.bank.verify:
    return _verify(place)
  # Passes may be added, and a bank may be asked for its price first.
  plain = config.to_dict()
  for field in ("passes", "price_per_hour", "dry_run"):
    plain["bank"].pop(field, None)
  workdir.claim(where, plain)
  job = assemble(config, where)
  header, constants = _prepare(job, place, where)
  if config.dry_run:
    return place
  writer = bank_lib.Writer(place, header, constants)
  for number in range(config.bank.passes):
    _write_pass(job, writer, header, number)
  return place


def assemble(config: ConfigDict, where: Path) -> Job:
  """Builds what the config names and checks that it fits together."""
  if config.bank.passes < 1:
    raise ValueError(f"bank.passes is {config.bank.passes}; at least 1")
  mesh = mesh_lib.make_mesh(jax.local_devices())
  mesh_lib.check_batch(config.batch_size, mesh)
  taught = setup.teaching(config)
  preprocess = setup.preprocess(config, taught.viewer)
  if preprocess.canvas:
    raise ValueError(
      "a bank is written from crops made on the host; set preprocess.canvas=0"
    )
  setup.check_crops(config, preprocess, mesh)
  codec = resolve.build("codecs", "Codec", config.bank.codec.to_dict())
  data = setup.data(config.data)
  return Job(config, data, taught, preprocess, codec, mesh, SkipLog(where))


def _widths(job: Job) -> dict[str, tuple[int, ...]]:
  """Shapes of what the codec stores, per crop."""
  source = job.taught.source
  batch = phases.image_batch(
    job.config.batch_size, job.views.image_size, source
  )
  frozen = {"teacher": job.taught.variables, "artifact": {}}
  offered = phases.teacher_specs(source, frozen, batch)
  missing = sorted(set(job.codec.taps) - set(offered))
  if missing:
    raise ValueError(
      f"the codec {job.config.bank.codec.name!r} stores the taps {missing}; "
      f"this teacher offers {sorted(offered)}"
    )
  specs = jax.eval_shape(
    lambda f, b: dict(job.codec.collect(source(f, b))), frozen, batch
  )
  return {tap: spec.shape[1:] for tap, spec in specs.items()}


def _prepare(
  job: Job, place: str, where: Path
) -> tuple[bank_lib.Header, dict[str, np.ndarray]]:
  """What the bank is and its constants; says what it will cost."""
  config, widths = job.config, _widths(job)
  arrays = {"geometry": _GEOMETRY, **job.codec.arrays(widths)}
  sample, rate = _sample(job)
  if bank_lib.exists(place):
    # Computed anew, on other devices say, they would differ in the last bit.
    constants = bank_lib.Bank(place).constants
  else:
    constants = job.codec.constants(_artifact(job, where), sample)
  header = bank_lib.Header(
    records=len(job.data),
    crops=job.views.num_crops,
    shard=config.bank.shard,
    arrays=arrays,
    about={
      "teacher": job.taught.fingerprint,
      "teacher_name": config.teacher.name,
      "images": job.data.fingerprint,
      "views": bank_checks.settings(job.views),
      "seen": bank_checks.seen(job.views),
      "seed": config.seed,
      "per_image": job.codec.per_image,
      "codec": config.bank.codec.to_dict(),
      "widths": {tap: list(width) for tap, width in widths.items()},
    },
  )
  summary.say(_price(config, header, rate, place))
  return header, constants


def _artifact(job: Job, where: Path) -> Mapping[str, np.ndarray]:
  """The teacher's basis, if the codec projects on one."""
  if not job.codec.needs_basis:
    return {}
  found = setup.fit_basis(
    job.config,
    job.taught,
    "feature",
    job.data,
    where,
    mesh_lib.make_mesh(),
    job.skips,
  )
  return found.artifact(job.codec.width)


def _sample(job: Job) -> tuple[dict[str, np.ndarray], float]:
  """Taps of the first records, and views per second of this process."""
  rows = range(min(_SAMPLE, len(job.data)))
  found, times = [], []
  for taps, _ in job.taps(0, rows):
    found.append(jax.device_get(taps))
    times.append(time.monotonic())
  sample = {
    name: np.concatenate([taps[name] for taps in found]) for name in found[0]
  }
  # The first batch compiles.
  seconds = (times[-1] - times[0]) / max(len(times) - 1, 1)
  return sample, job.config.batch_size / seconds if seconds else 0.0


def _price(
  config: ConfigDict, header: bank_lib.Header, rate: float, place: str
) -> str:
  """Size, time and cost, before anything is written."""
  views = header.records * header.crops * config.bank.passes
  size = views * header.bytes_per_crop / 1e9
  text = (
    f"bank {place}: {header.records} images x {config.bank.passes} passes x "
    f"{header.crops} crops, {header.bytes_per_crop} bytes each: {size:.3g} GB"
  )
  if not rate:  # a single batch, most of which was compilation
    return text
  hours = views / rate / jax.process_count() / 3600
  text += f"; {hours:.3g} hours at {rate * jax.process_count():.0f} crops/s"
  if config.bank.price_per_hour:
    text += f", {hours * config.bank.price_per_hour:.2f} in money"
  return text


def _write_pass(
  job: Job, writer: bank_lib.Writer, header: bank_lib.Header, number: int
) -> None:
  """Every shard of a pass that is this process's and not there yet."""
  constants = jax.device_put(writer.constants)
  missing = [
    shard
    for shard in range(header.num_shards)
    # Counted through all passes, so that nobody is always the last.
    if (number * header.num_shards + shard) % jax.process_count()
    == jax.process_index()
    and not writer.has(number, shard)
  ]
  total = sum(len(header.rows(shard)) for shard in missing)
  with tqdm(total=total, desc=f"pass {number}", disable=None) as progress:
    for shard in missing:
      arrays = _shard(job, constants, header, number, header.rows(shard))
      writer.write(number, shard, arrays)
      progress.update(len(header.rows(shard)))


def _shard(
  job: Job,
  constants: Any,
  header: bank_lib.Header,
  number: int,
  rows: range,
) -> dict[str, np.ndarray]:
  """What a shard of a pass holds."""
  parts: dict[str, list[np.ndarray]] = {name: [] for name in header.arrays}
  for taps, geometry in job.taps(number, rows):
    stored, finite = jax.device_get(job.encode(constants, taps))
    _check_finite(finite, rows)
    stored["geometry"] = _small(geometry)
    for name, values in stored.items():
      parts[name].append(values.reshape(*geometry.shape[:2], -1))
  return _joined(parts, header, len(rows))


def _check_finite(finite: Any, rows: range) -> None:
  if not finite:
    raise ValueError(
      f"the teacher says NaN or infinity about one of the records {rows}; "
      "nothing of this shard was stored. Check its weights, its input and "
      "--config.dtype."
    )


def _small(geometry: np.ndarray) -> np.ndarray:
  if geometry.max() > np.iinfo(np.int16).max:
    raise ValueError(
      f"an image has a side of {geometry.max()} pixels; banks hold images of "
      f"up to {np.iinfo(np.int16).max}. Shrink it first."
    )
  return geometry.astype(np.int16)


def _joined(
  parts: Mapping[str, list[np.ndarray]], header: bank_lib.Header, rows: int
) -> dict[str, np.ndarray]:
  """{array: (rows, crops, ...)}, without the padding of the last batch."""
  return {
    name: np.concatenate(parts[name])[:rows].reshape(rows, header.crops, *shape)
    for name, (shape, _) in header.arrays.items()
  }


def _verify(place: str) -> str:
  """Reads everything.

  Raises:
    ValueError: something is damaged; all of it is listed on standard error.
  """
  bank = bank_lib.Bank(place)
  found = list(bank.damaged())
  for line in found:
    summary.say(line)
  if found:
    raise ValueError(
      f"the bank {place} is damaged in {len(found)} places, listed above"
    )
  text = f"{place}: {bank.num_passes} complete passes, all checksums agree"
  every = bank.header.num_shards
  for number, count in bank.counts().items():
    if count < every:
      text += f"; pass {number} has {count} of {every} shards"
  print(text)
  return place
