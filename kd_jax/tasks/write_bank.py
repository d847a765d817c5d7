"""Runs a teacher once over every crop and stores what it says.

Every process writes shards of its own, on its own devices. What is complete
stays: a killed writer goes on where it was, and more passes can be added.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from kd_jax import workdir
from kd_jax.buckets import spool
from kd_jax.build.bank_job import BankJob, bank_job
from kd_jax.codecs.base import CodecBase
from kd_jax.data import bank as bank_lib
from kd_jax.data.bank import compatibility
from kd_jax.data.preprocess import Preprocess
from kd_jax.report.run import summary
from kd_jax.train import phases
from kd_jax.types import Array

_GEOMETRY = ((7,), "int16")
_SAMPLE = 1024  # records that scales are taken from
_VALUES = 2**26  # of them: maps are large


def run(config: ConfigDict, where: str | Path) -> Path | str:
  """Writes, goes on with or verifies the bank of `config`.

  Returns:
    Its place.

  Raises:
    ValueError: anything that does not fit, or a bank that is damaged.
  """
  where = Path(where)
  if config.bank.verify:
    return _verify(config.bank.place or spool.address(where / "bank"))
  # Passes may be added, and a bank may be asked for its price first.
  plain = config.to_dict()
  for field in ("passes", "price_per_hour", "dry_run"):
    plain["bank"].pop(field, None)
  with workdir.claimed(where, plain):
    job = bank_job(config, where)
    header, constants = _prepare(job)
    if not config.dry_run:
      writer = bank_lib.Writer(job.place, header, constants)
      for number in range(job.passes):
        _write_pass(job, writer, header, number)
  return job.place


def _widths(job: BankJob) -> dict[str, tuple[int, ...]]:
  """Shapes of what the codec stores, per crop."""
  source, inputs = job.teaching.source, job.inputs
  batch = phases.image_batch(inputs.batch_size, inputs.views.image_size, source)
  frozen = {"teacher": job.teaching.variables, "artifact": {}}
  offered = phases.teacher_specs(source, frozen, batch)
  missing = sorted(set(job.codec.taps) - set(offered))
  if missing:
    raise ValueError(
      f"the codec {job.codec_fields['name']!r} stores the taps {missing}; "
      f"this teacher offers {sorted(offered)}"
    )
  specs = jax.eval_shape(
    lambda f, b: dict(job.codec.collect(source(f, b))), frozen, batch
  )
  return {tap: spec.shape[1:] for tap, spec in specs.items()}


def _prepare(job: BankJob) -> tuple[bank_lib.Header, dict[str, np.ndarray]]:
  """What the bank is and its constants; says what it will cost."""
  widths = _widths(job)
  header = _header(job, widths)
  sample, rate = _sample(job, widths)
  if bank_lib.exists(job.place):
    # Computed anew, on other devices say, they would differ in the last bit.
    constants = bank_lib.Bank(job.place).constants
  else:
    constants = job.codec.constants(_artifact(job, widths), sample)
  summary.say(_price(job, header, rate))
  for tap, shares in job.codec.lost(constants, sample).items():
    summary.say(_error(tap, header, *shares))
  return header, constants


def _header(
  job: BankJob, widths: Mapping[str, tuple[int, ...]]
) -> bank_lib.Header:
  """What is stored, and what it comes from."""
  data, views = job.inputs.source, job.inputs.views
  assert isinstance(views, Preprocess)  # of the task's config
  together = job.codec.together
  return bank_lib.Header(
    records=len(data),
    crops=views.num_crops,
    shard=job.shard,
    arrays={"geometry": _GEOMETRY, **job.codec.arrays(widths)},
    about={
      "teacher": job.teaching.fingerprint,
      "teacher_name": job.teacher,
      "images": data.fingerprint,
      "views": compatibility.settings(views),
      "seen": compatibility.seen(views),
      "seed": job.inputs.seed,
      "per_image": job.codec.per_image,
      "codec": dict(job.codec_fields),
      **({} if together == CodecBase.together else {"together": together}),
      "widths": {tap: list(width) for tap, width in widths.items()},
    },
  )


def _artifact(
  job: BankJob, widths: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Any]:
  """The teacher's basis, or one of each tap, if the codec projects on it."""
  wanted = job.codec.bases(widths)
  if wanted:
    shapes = {t: jax.ShapeDtypeStruct((1, *widths[t]), float) for t in wanted}
    job.fit.check_rows(shapes, wanted)
    found = job.fit.bases(tuple(wanted))
    return {tap: found[tap].artifact(kept) for tap, kept in wanted.items()}
  if not job.codec.needs_basis:
    return {}
  return job.fit.basis("feature").artifact(job.codec.width)


def _sample(
  job: BankJob, widths: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], float]:
  """Taps of the first records, and views per second of this process."""
  values = sum(map(math.prod, widths.values())) * job.inputs.views.num_crops
  most = min(_SAMPLE, max(_VALUES // values, 2 * job.inputs.batch_size))
  rows = range(min(most, len(job.inputs.source)))
  found, times = [], []
  for taps, _ in job.taps(0, rows):
    found.append(jax.device_get(taps))
    times.append(time.monotonic())
  sample = {
    name: np.concatenate([taps[name] for taps in found]) for name in found[0]
  }
  # The first batch compiles.
  seconds = (times[-1] - times[0]) / max(len(times) - 1, 1)
  return sample, job.inputs.batch_size / seconds if seconds else 0.0


def _price(job: BankJob, header: bank_lib.Header, rate: float) -> str:
  """Size, time and cost, before anything is written."""
  views = header.records * header.crops * job.passes
  size = views * header.bytes_per_crop / 1e9
  text = (
    f"bank {job.place}: {header.records} images x {job.passes} passes x "
    f"{header.crops} crops, {header.bytes_per_crop} bytes each: {size:.3g} GB"
  )
  if not rate:  # a single batch, most of which was compilation
    return text
  hours = views / rate / jax.process_count() / 3600
  text += f"; {hours:.3g} hours at {rate * jax.process_count():.0f} crops/s"
  if job.price_per_hour:
    text += f", {hours * job.price_per_hour:.2f} in money"
  return text


def _error(
  tap: str, header: bank_lib.Header, lost: float, beyond: float
) -> str:
  """What does not come back of a tap."""
  shape, dtype = header.arrays[tap]
  return (
    f"{tap}: {shape[-1]} directions in {dtype} of {math.prod(shape[:-1])} "
    f"positions; of its variance {lost:.2%} does not come back on crops that "
    f"set no scale, {beyond:.2%} because it is in other directions"
  )


def _write_pass(
  job: BankJob, writer: bank_lib.Writer, header: bank_lib.Header, number: int
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
  job: BankJob,
  constants: Mapping[str, Array],
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


def _check_finite(finite: np.ndarray, rows: range) -> None:
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
